# What differs between any two runs: ids, times, addresses. Everything else is compared as it is.
# Ids that are made up: members and directories, topics and clusters, requests.
s/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/UUID/g
s/(TopicId: |Cluster ID: |ClusterId:[[:space:]]+|"directoryId": "|DirectoryId: )[A-Za-z0-9_-]{22}/\1ID/g
s/correlation id [0-9]+/correlation id N/g
# Times: of a clock, in milliseconds (not those that the steps give records), measured.
s/\[?20[0-9]{2}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9][,.:][0-9]{3}Z?\]?/TIME/g
s/\b1(7[3-9]|[89][0-9])[0-9]{10}\b/TIME/g
s/[0-9.]+ records\/sec \([0-9.]+ MB\/sec\), [0-9.]+ ms avg latency, [0-9.]+ ms max latency/RATE/
s/RATE, [0-9]+ ms 50th, [0-9]+ ms 95th, [0-9]+ ms 99th, [0-9]+ ms 99\.9th/RATE/
s/"avg_throughput":[0-9.]+/"avg_throughput":RATE/
s/^Avg latency: [0-9.]+ ms$/Avg latency: DURATION/
s/^Percentiles: 50th = [0-9]+, 99th = [0-9]+, 99\.9th = [0-9]+$/Percentiles: DURATIONS/
s/^([0-9]+)\t[0-9.]+$/\1 DURATION/
s/^(TIME, )(TIME|[0-9]+)(, [0-9.]+, )[0-9.]+, ([0-9]+), [0-9., -]+$/\1\2\3RATE, \4, RATES/
# Blanks pad columns to the width of what stands in them.
s/[[:space:]]+/ /g
s/ $//
