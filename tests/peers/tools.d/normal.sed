# What differs between any two runs: ids, times, addresses. Everything else is compared as it is.
# Ids that are made up: members and directories, topics and clusters, requests.
s/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/UUID/g
s/(TopicId: |Cluster ID: |ClusterId:[[:space:]]+|"directoryId": "|DirectoryId: )[A-Za-z0-9_-]{22}/\1ID/g
s/correlation id [0-9]+/correlation id N/g
s/tries=[0-9]+/tries=N/g
s/after [0-9]+ attempt\(s\)/after N attempts/g
s/(console|perf)-consumer-[0-9]+/\1-consumer-N/g
s/Member [A-Za-z0-9_-]{22} with/Member ID with/g
s#[A-Za-z0-9_-]{22}([[:space:]]+/(127\.0\.0\.1|HOST))#ID\1#
# Times: of a clock, in milliseconds (not those that the steps give records), measured.
s/\[?20[0-9]{2}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9][,.:][0-9]{3}Z?\]?/TIME/g
s/\b1(7[3-9]|[89][0-9])[0-9]{10}\b/TIME/g
s/[0-9.]+ records\/sec \([0-9.]+ MB\/sec\), [0-9.]+ ms avg latency, [0-9.]+ ms max latency/RATE/
s/RATE, [0-9]+ ms 50th, [0-9]+ ms 95th, [0-9]+ ms 99th, [0-9]+ ms 99\.9th/RATE/
s/"avg_throughput":[0-9.]+/"avg_throughput":RATE/
s/^Avg latency: [0-9.]+ ms$/Avg latency: DURATION/
s/^Percentiles: 50th = [0-9]+, 99th = [0-9]+, 99\.9th = [0-9]+$/Percentiles: DURATIONS/
s/^([0-9]+)\t[0-9.]+$/\1 DURATION/
s/^(TIME, )(TIME|[0-9]+)(, [0-9.]+, )[0-9.]+, ([0-9]+), ([0-9., -]|Infinity|NaN)+$/\1\2\3RATE, \4, RATES/
# Blanks pad columns to the width of what stands in them.
s/[[:space:]]+/ /g
s/ $//
# Ids of producers, and how far a consumer got that was not told where to stop.
s/^([a-z-]+ 1) [0-9]+ ([A-Z][A-Za-z]+)$/\1 PID \2/
s/^(1 [a-z-]+) [0-9]+ ([0-9]+ [A-Z][A-Za-z]+ [0-9]+ TIME) [0-9]+/\1 PID \2 DURATION/
s/^(1 [a-z-]+) [0-9]+ ([0-9]+ [A-Z][A-Za-z]+ [0-9]+ None None)/\1 PID \2/
s/^[0-9]+ ([0-9]+ -?[0-9]+) -?[0-9]+ TIME /PID \1 SEQUENCE TIME /
s/^(perf-consumer-N perf 0) [0-9]+ ([0-9]+) [0-9]+ /\1 N \2 N /
# Where the metadata log stands.
s/^(HighWatermark: |Feature: .* Epoch: )[0-9]+$/\1N/
s/^(1 )[A-Za-z0-9_-]{22} [0-9]+ 0 /\1ID N 0 /
s/[0-9]+ ms ago/N ms ago/g
s/^(1 )(127\.0\.0\.1|localhost) [0-9]+ /\1HOST PORT /
# A consumer that was given a topic before its metadata told the name of it says so; which comes first is chance.
/"name":"partitions_assigned","partitions":\[\]/d
# How a call that nobody answers runs out of time, and what a producer tries again by itself, is chance too.
s/(on leader: )(Timed out waiting for a node assignment\. Call: describeProducers|Call\(callName=describeProducers).*/\1describeProducers/
s/(TimeoutException: )(Call\(callName=deleteRecords|Timed out waiting for a node assignment\. Call: deleteRecords).*/\1deleteRecords/
/Got error produce response .*, retrying \([0-9]+ attempts left\)\. Error: (CONCURRENT_TRANSACTIONS|OUT_OF_ORDER_SEQUENCE_NUMBER) /d
