# What stands in one line in the order of a hash table is sorted: settings of a topic, quotas, options, states, partitions.
sub in_order { my ($separator, $list) = @_; join($separator, sort(split(/\Q$separator\E/, $list))) }
s/(?<=Configs: )(\S+)/in_order(',', $1)/e;
s/(?<= are )(\w+=[\d.]+(?:, \w+=[\d.]+)+)$/in_order(', ', $1)/e;
s/(?<=states are: )(.*)$/in_order(', ', $1)/e;
s/(\[[a-z-]+\](?:, \[[a-z-]+\])+)/in_order(', ', $1)/ge;
s/(?<="partitions":\[)(\{[^]]*\})/join(',', sort($1 =~ m:\{[^}]*\}:g))/e;
