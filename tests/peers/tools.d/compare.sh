# The comparison of what our binary and a real Kafka answer to the same command. Read by `tools.d/lib.sh` and `cluster-tools`.
declare -A folder=() rule_why=() rule_on=() used=()
rules=() # NAME<TAB>SIDE<TAB>PATTERN, in the order of the file
normal_too=() # more of sed's options for the normal form
stale=0 order=''

# normal SIDE: ids, times, addresses and the folder of the data get common names; blanks that pad columns become one; settings
# of a topic, names of options and partitions in a folder that stand in one line in the order of a hash table are sorted
normal() {
  sed -E -e "s#${folder[$1]}#FOLDER#g" -e 's/(localhost|127\.0\.0\.1):[0-9]+/HOST:PORT/g' -f "$here/tools.d/normal.sed" "${normal_too[@]}" |
    perl -p "$here/tools.d/sorted.pl" |
    case $order in sort) sort ;; uniq) uniq ;; *) cat ;; esac
}

# compare COMMAND KAFKA OURS: the normal forms of both answers; `rest` gets the lines that no listed difference covers, each after
# its side's name, `names` the listed differences that cover the others
compare() {
  local line
  rest='' names=()
  while IFS= read -r line; do
    if absorbed "$1" "${line%%:*}" "${line#*:}"; then names+=("$by"); else rest+=$line$'\n'; fi
  done < <(diff --old-line-format='kafka:%L' --new-line-format='ours:%L' --unchanged-line-format='' "$2" "$3")
}

# read_differences FILE: blocks of [NAME], why:, on: (commands), kafka: and ours: (a line that only this side has)
read_differences() {
  local line name='' value number=0
  while IFS= read -r line; do
    number=$((number + 1)) value=${line#*: }
    case $line in
      '' | '#'*) ;;
      '['*']') name=${line#[}; name=${name%]}; [[ -z ${rule_why[$name]:-} ]] || die "$1:$number: $name is there twice" ;;
      'why: '*) rule_why[$name]=$value ;;
      'on: '*) rule_on[$name]=$value ;;
      'kafka: '* | 'ours: '*)
        [[ -n ${rule_why[$name]:-} && -n ${rule_on[$name]:-} ]] || die "$1:$number: $name lacks why: or on:"
        rules+=("$name"$'\t'"${line%%:*}"$'\t'"$value") ;;
      *) die "$1:$number: cannot be read" ;;
    esac
  done <"$1"
}
# absorbed COMMAND SIDE LINE: whether a listed difference covers the line; `by` is its name
absorbed() {
  local rule name side pattern
  for rule in "${rules[@]}"; do
    IFS=$'\t' read -r name side pattern <<<"$rule"
    [[ $side == "$2" && $1 =~ ${rule_on[$name]} && $3 =~ $pattern ]] || continue
    by=$name used[$rule]=1
    return 0
  done
  return 1
}
report_stale() {
  local rule
  for rule in "${rules[@]}"; do
    [[ -z ${used[$rule]:-} ]] || continue
    echo "STALE   no step showed ${rule//$'\t'/ }"; stale=$((stale + 1))
  done
}
