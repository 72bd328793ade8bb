# Shared by the scripts of this folder: builds the driver, starts and stops the systems that are measured, takes turns.
# ours  dist/casemate, every acknowledgement synced        K0  Kafka that acknowledges from the page cache
# K1    Kafka with every append synced (flush.messages=1)
source "$(dirname "${BASH_SOURCE[0]}")/../tests/peers/common.sh"
top=$(cd "$here/../.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/casemate/target} # as the Makefile has it: RocksDB is compiled once
binary=$top/dist/casemate driver=''
work=$peers/bench port=19092 pid='' address='' admin=''
sets=()       # settings of ours: --set NAME=VALUE …
kafka_sets=() # settings of Kafka: --set NAME=VALUE …

# Finds the binaries and makes an empty folder to work in; called once, when the options are known.
prepare() {
  [[ -x $binary ]] || die 'make build comes first'
  [[ -n $driver ]] || driver=$(cd "$top" && cargo bench --locked --no-run --bench driver --message-format json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*driver-[^"]*\)".*/\1/p' | tail -1)
  [[ -x $driver ]] || die 'the driver does not build: cargo bench --no-run --bench driver'
  rm -rf "$work"; mkdir -p "$work"
  results=$work/results.jsonl
  : >"$results"
}

now_ms() { date +%s%3N; }
start() { # SYSTEM
  case $1 in
    ours*) start_ours ;;
    K0) start_kafka ;;
    K1) start_kafka --fsync ;;
    *) die "unknown system $1" ;;
  esac
}
start_kafka() {
  address=$("$here/kafka" start --dir "$work/kafka" --port "$port" "${kafka_sets[@]}" "$@"); pid=$(<"$work/kafka/pid") admin=''
}
start_ours() {
  : >"$work/log"
  address=127.0.0.1:$((port + 2)) admin=127.0.0.1:$((port + 3))
  "$binary" dev --dir "$work/ours" --listen "$address" --tls-listen 127.0.0.1:0 --admin-listen "$admin" \
    "${sets[@]}" 2>"$work/log" & pid=$!
  for _ in $(seq 3000); do grep -qa '^casemate ready ' "$work/log" && break; kill -0 "$pid" 2>/dev/null || break; sleep 0.01; done
  grep -qa '^casemate ready ' "$work/log" || { tail -20 "$work/log" >&2; die 'casemate did not start'; }
}
stop() { # SYSTEM [SIGNAL]
  case $1 in
    ours*) kill "${2:--TERM}" "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true ;;
    *) "$here/kafka" stop --dir "$work/kafka" ;;
  esac
  pid=''
}
wipe() { rm -rf "$work/ours" "$work/kafka"; }
trap '[[ -z $pid ]] || kill "$pid" 2>/dev/null || true' EXIT
drive() { timeout 900 "$driver" "$@" --bootstrap "$address" --pid "$pid"; }
# drive_to_results WORD…: what fails is said and leaves no line
drive_to_results() { drive "$@" >>"$results" || echo "  failed: $*" >&2; }

# take_turns PAIRS SYSTEMS COMMAND…: calls COMMAND… SYSTEM, the order turning round each time
take_turns() {
  local pairs=$1 systems=$2 n order s; shift 2
  for ((n = 0; n < pairs; n++)); do
    order=$systems
    ((n % 2 == 0)) || order=$(tr ' ' '\n' <<<"$systems" | tac | tr '\n' ' ')
    for s in $order; do "$@" "$s"; done
  done
}
machine() { echo "$(nproc) processors, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"; }
