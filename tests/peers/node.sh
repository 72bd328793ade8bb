# Sourced by scripts that take a node away from a running application: options, processes, the node, the course of events.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kind='' binary='' address='' port=19292 seconds=180 rate=200 kills=2 restarts=1 keep='' sets=()
options() {
  while (($#)); do
    case $1 in
      --kafka) kind=kafka; shift ;;
      --bootstrap) kind=foreign address=$2; shift 2 ;;
      --seconds) seconds=$2; shift 2 ;; --rate) rate=$2; shift 2 ;; --kills) kills=$2; shift 2 ;;
      --restarts) restarts=$2; shift 2 ;; --port) port=$2; shift 2 ;; --set) sets+=(--set "$2"); shift 2 ;;
      --keep) keep=1; shift ;;
      -*) die "unknown option $1" ;;
      *) kind=ours binary=$1; shift ;;
    esac
  done
  [[ -n $kind ]] || usage
  [[ $kind != ours || -x $binary ]] || die "no binary $binary: make build comes first"
  [[ $kind != foreign ]] || kills=0
  ((seconds >= 60 && rate > 0)) || die 'needs --seconds of 60 or more, and a rate'
  need java 'a JDK 17 or newer'; need javac 'a JDK 17 or newer'
  # Loopback ports of outgoing connections begin above: a client that looks for a dead node could otherwise take its port.
  ((port < $(cut -f1 /proc/sys/net/ipv4/ip_local_port_range))) || die "--port $port may be taken by a client's own connection"
  work=$(mktemp -d)
  trap cleanup EXIT
}

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() { echo "FAILED: $*; everything is in $work" >&2; keep=1; exit 1; }
cleanup() {
  local name
  for name in "${!pid[@]}"; do kill -9 "${pid[$name]}" 2>/dev/null || true; done
  [[ -n $keep ]] || rm -rf "$work"
}

# Processes by name: output in $work/NAME.log, ended when the script ends.
declare -A pid=()
launch() { # NAME COMMAND…
  local name=$1; shift
  "$@" >>"$work/$name.log" 2>&1 </dev/null & pid[$name]=$!
  disown "${pid[$name]}" # no message of the shell's when it is killed
}
# A process that nobody has waited for yet is dead all the same.
alive() { [[ -n ${pid[$1]:-} ]] && grep -q '^State:[[:space:]]*[^ZX]' "/proc/${pid[$1]}/status" 2>/dev/null; }
said() { # SECONDS NAME LINE: waits until it is in its output
  local deadline=$((SECONDS + $1))
  until grep -qx "$3" "$work/$2.log"; do
    alive "$2" && ((SECONDS < deadline)) || { tail -5 "$work/$2.log" >&2; fail "$2 does not say: $3"; }
    sleep 0.2
  done
}
gone() { # NAME SECONDS: waits for its end
  local deadline=$((SECONDS + $2))
  while alive "$1"; do ((SECONDS < deadline)) || return 1; sleep 0.1; done
}
end() { # SIGNAL NAME: it must be there, and obey
  alive "$2" || { tail -5 "$work/$2.log" >&2; fail "$2 ended by itself"; }
  kill "-$1" "${pid[$2]}"
  gone "$2" 60 || fail "$2 does not end on SIG$1"
  unset "pid[$2]"
}

# A Java program of this folder, or a class of the jars, in the background or (run) to its end.
classes() { application=$(application_jars); mkdir "$work/classes"; javac -d "$work/classes" -cp "$application/*" "$here"/java/*.java; }
java_command() { # CLASS
  printf '%s\n' java -Xmx256m -XX:+UseSerialGC -Dlog4j2.configurationFile="$application/log4j2.properties" \
    -cp "$work/classes:$application/*" "$1"
}
launch_java() { # NAME CLASS ARGUMENTS…
  local name=$1 command; mapfile -t command < <(java_command "$2"); shift 2
  launch "$name" "${command[@]}" "$@"
}
run_java() { # SECONDS CLASS ARGUMENTS…
  local limit=$1 command; mapfile -t command < <(java_command "$2"); shift 2
  KAFKA_LOG_LEVEL=ERROR timeout -k 5 "$limit" "${command[@]}" "$@"
}

# The node: one folder and one port for all its lives. What kills it leaves it no time to write anything.
lives=0 killed=0
node_start() {
  lives=$((lives + 1))
  case $kind in
    ours)
      address=127.0.0.1:$port
      launch node "$binary" dev --dir "$work/node" --listen "$address" --tls-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "${sets[@]}"
      local deadline=$((SECONDS + 60))
      until (($(grep -ca '^casemate ready ' "$work/node.log") == lives)); do
        alive node && ((SECONDS < deadline)) || { tail -20 "$work/node.log" >&2; fail 'the node did not start'; }
        sleep 0.05
      done ;;
    kafka)
      address=$("$here/kafka" start --dir "$work/node" --port "$port" --heap 512m "${sets[@]}") || fail 'the node did not start'
      pid[node]=$(<"$work/node/pid") ;;
  esac
}
node_kill() {
  end KILL node
  rm -f "$work/node/pid"
  killed=$((killed + 1))
}

# The course of events. A script adds them as at SECOND FUNCTION ARGUMENTS…, and each kill asks progress, a function of the
# script, whether anything was going on: a node that is killed beside an idle application shows nothing.
events=()
at() { local second=$1; shift; events+=("$second $*"); }
spread() { # COUNT FIRST WHOLE: COUNT moments around FIRST, FIRST + 2, FIRST + 4… WHOLEths of the run, up to a 24th of it off
  local i base jitter=$((seconds / 24))
  for ((i = 0; i < $1; i++)); do
    base=$((seconds * ($2 + i * 2) / $3))
    echo $((base - jitter + RANDOM % (2 * jitter + 1)))
  done
}
seen=0
moves() { # SECONDS WHEN: waits until something was processed since it was asked last
  local deadline=$((SECONDS + $1)) now
  until now=$(progress); ((now > seen)); do
    ((SECONDS < deadline)) || fail "$2: nothing was processed for $1 s ($now)"
    sleep 0.5
  done
  seen=$now
}
node_event() {
  moves 60 'before the kill of the node'
  local began; node_kill; began=$(date +%s%3N) seen=$(progress)
  node_start
  say "node killed (SIGKILL) after $seen, serves again after $(($(date +%s%3N) - began)) ms"
}
play() {
  local began=$SECONDS line second event
  while read -r -u 3 second event; do
    while ((SECONDS - began < second)); do sleep 0.1; done
    $event
  done 3< <(printf '%s\n' "${events[@]}" | sort -n)
  while ((SECONDS - began < seconds)); do sleep 0.1; done
  ((killed == kills)) || fail "$killed kills of the node instead of $kills"
}
