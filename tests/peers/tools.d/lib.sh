# What the steps of steps/ are written in. Read by `tools`.
source "$here/tools.d/compare.sh"
declare -A address=() learnt=()
sides=(kafka ours) pids=()
steps=0 alike=0 deliberate=0 failed=0
input=/dev/null limit=60 wanted=good saving=''

# --- The words of a step. `run TOOL ARGUMENTS…` is one; the others stand before it and hold for it alone. In the arguments
# @ is --bootstrap-server with its side's address, %A that address, %{NAME} what was learnt under that name.

# run TOOL ARGUMENTS…: both sides must answer alike, and the real Kafka must have done what was asked
run() {
  local side kids=() name
  steps=$((steps + 1)); printf -v name '%03d' "$steps"
  for side in "${sides[@]}"; do once "$side" "$answers/$name.$side" "$@" & kids+=($!); done
  wait "${kids[@]}"
  judge "$name" "$*"
}
# mistake run …: the real Kafka must refuse it
mistake() { wanted=bad; "$@"; wanted=good; }
# unsure run …: Kafka's exit code says nothing
unsure() { wanted=any; "$@"; wanted=good; }
# typed TEXT run …: what is typed into the tool
typed() { printf '%b' "$1" >"$work/input"; input=$work/input; shift; "$@"; input=/dev/null; }
# unordered run …: the order of the lines is that of a hash table, or of answers that arrive together
unordered() { order=sort; "$@"; order=''; }
# repeated run …: how often a line is repeated is a matter of time
repeated() { order='uniq'; "$@"; order=''; }
# patient SECONDS run …: takes longer than a minute
patient() { limit=$1; shift; "$@"; limit=60; }
# saved FILE run …: standard output is there as a file for later steps
saved() { saving=$1; shift; "$@"; saving=''; }

# file NAME: standard input becomes a file on both sides; %{…} in it is replaced
file() {
  local text side; text=$(cat)
  for side in "${sides[@]}"; do expand "$side" "$text" >"${folder[$side]}/$1"; done
}
# learn NAME SED TOOL ARGUMENTS…: what SED prints of the tool's output is known as %{NAME} afterwards
learn() {
  local name=$1 script=$2 side; shift 2
  for side in "${sides[@]}"; do
    learnt[$side.$name]=$(as_on "$side" "$@" 2>/dev/null | sed -nE "$script" | head -1)
    [[ -n ${learnt[$side.$name]} ]] || { echo "FAILED  learn $name: nothing on the side of $side"; failed=$((failed + 1)); }
  done
}
# until_says PATTERN TOOL ARGUMENTS…: asks on both sides until the output matches; not compared
until_says() {
  local pattern=$1 side kids=() kid; shift
  for side in "${sides[@]}"; do
    (for _ in $(seq 40); do as_on "$side" "$@" 2>&1 | grep -qE -e "$pattern" && exit 0; sleep 0.3; done; exit 1) & kids+=("$!")
  done
  for kid in "${kids[@]}"; do
    wait "$kid" || { echo "FAILED  waited in vain for $pattern: $*"; failed=$((failed + 1)); }
  done
}
# begin NAME TOOL ARGUMENTS…: goes on in the background on both sides until `end NAME [SIGNAL]`
begin() {
  local name=$1 side; shift
  for side in "${sides[@]}"; do
    words "$side" "$@"
    (cd "${folder[$side]}" && exec "$here/kafka-tool" "${argv[@]}") >"$answers/$name.$side.background" 2>&1 </dev/null &
    learnt[$side.pid.$name]=$!; pids+=($!)
  done
}
end() {
  local side
  for side in "${sides[@]}"; do
    kill "-${2:-TERM}" "${learnt[$side.pid.$1]}" 2>/dev/null || true
    wait "${learnt[$side.pid.$1]}" 2>/dev/null || true
  done
}

# --- One command on one side.

expand() { # SIDE TEXT
  local text=${2//%A/${address[$1]}}
  while [[ $text =~ %\{([a-z-]+)\} ]]; do text=${text//"${BASH_REMATCH[0]}"/${learnt[$1.${BASH_REMATCH[1]}]:-}}; done
  printf '%s' "$text"
}
words() { # SIDE ARGUMENTS…: fills argv
  local side=$1 word; shift; argv=()
  for word in "$@"; do
    if [[ $word == @ ]]; then argv+=(--bootstrap-server "${address[$side]}"); else argv+=("$(expand "$side" "$word")"); fi
  done
}
as_on() { # SIDE TOOL ARGUMENTS…
  local side=$1; shift
  words "$side" "$@"
  cd "${folder[$side]}" && timeout -k 5 "$limit" "$here/kafka-tool" "${argv[@]}" </dev/null
}
# once SIDE FILE TOOL ARGUMENTS…: FILE gets the output, the errors and the exit code, in this order
once() {
  local side=$1 out=$2 code=0; shift 2
  words "$side" "$@"
  (cd "${folder[$side]}" && timeout -k 5 "$limit" "$here/kafka-tool" "${argv[@]}" <"$input" >"$out.out" 2>"$out.err") || code=$?
  [[ -z $saving ]] || cp "$out.out" "${folder[$side]}/$saving"
  { cat "$out.out"; sed 's/^/! /' "$out.err"; echo "exit $code"; } >"$out"
  rm -f "$out.out" "$out.err"
}
# judge NAME COMMAND
judge() {
  local name=$1 command=$2 side code rest='' names=()
  for side in "${sides[@]}"; do normal "$side" <"$answers/$name.$side" >"$answers/$name.$side.normal"; done
  code=$(tail -1 "$answers/$name.kafka"); code=${code#exit }
  compare "$command" "$answers/$name.kafka.normal" "$answers/$name.ours.normal"
  case $wanted:$code in
    *:124) rest+="kafka took more than $limit seconds"$'\n' ;;
    good:0 | any:*) ;;
    bad:0) rest+='the real Kafka should have refused this'$'\n' ;;
    good:*) rest+="the real Kafka should have done this, and ended with $code"$'\n'$(tail -5 "$answers/$name.kafka")$'\n' ;;
  esac
  if [[ -n $rest ]]; then
    printf 'FAILED  %s %s\n' "$name" "$command"; sed 's/^/  | /' <<<"${rest%$'\n'}"; failed=$((failed + 1))
  elif ((${#names[@]} > 0)); then
    printf 'listed  %s %s (%s)\n' "$name" "$command" "$(printf '%s\n' "${names[@]}" | sort -u | paste -sd ' ')"
    deliberate=$((deliberate + 1))
  else printf 'alike   %s %s\n' "$name" "$command"; alike=$((alike + 1)); fi
}
