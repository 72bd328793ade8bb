# What differs between any two runs on three nodes, beside tools.d/normal.sed.
# Ports, folders, where kcat has its settings.
s/^([123]) (127\.0\.0\.1|localhost) [0-9]+ /\1 HOST PORT /
s#FOLDER/(nodes|cluster)/n([123])(/data)?#FOLDER/n\2#g
/^% Reading configuration from file /d
# Who leads the quorum, and where each of its members stands.
s/^(LeaderId|LeaderEpoch|MaxFollowerLag|MaxFollowerLagTimeMs): -?[0-9]+$/\1: N/
s/^([123]) (ID|[A-Za-z0-9_-]{22}) (N|-?[0-9]+) -?[0-9]+ (TIME|-1) (TIME|-1) (Leader|Follower)$/\1 ID N LAG TIME TIME ROLE/
# Coordinators, and ids of producers.
s/^(readers HOST:PORT) \([123]\) /\1 (N) /
s/^(mover) [123] (PID|[0-9]+) /\1 N PID /
s/^[123] (mover) (PID|[0-9]+) ([0-9]+ [A-Z][A-Za-z]+ [0-9]+) /N \1 PID \3 /
# Where the cluster puts what nobody placed; a proposal is made at random.
/Topic: (spread|busy) Partition: /{
  s/(Leader: )[123]/\1N/
  :replicas
  s/(Replicas: (N,)*)[123]/\1N/
  t replicas
  :isr
  s/(Isr: (N,)*)[123]/\1N/
  t isr
}
/"topic":"spread"/{
  s/("replicas":)\[[123],[123],[123]\]/\1[N,N,N]/g
  s#FOLDER/n[123]#FOLDER/nN#g
}
# What a broker has on its disk, one partition a line.
s/,?(\{"partition":")/\n\1/g
s/(\})(\],"error":)/\1\n\2/g
s/("size":)[0-9]+/\1N/g
