# Shared by the scripts of this folder: where the peers are kept, and how they get there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=${CASEMATE_PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/casemate-peers}
mkdir -p "$peers"

die() { echo "${0##*/}: $*" >&2; exit 2; }
need() { command -v "$1" >/dev/null || die "needs $1${2:+ ($2)}"; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }

# maven NAME GROUP:ARTIFACT:VERSION…: the folder NAME with these jars and all that they need, fetched once by Maven.
maven() {
  local dir=$peers/$1 new=$peers/$1.new.$$ a group artifact version; shift
  if [[ ! -e $dir/complete ]]; then
    need java 'a JDK 17 or newer'; need mvn maven
    mkdir -p "$new"
    {
      echo '<project><modelVersion>4.0.0</modelVersion><groupId>peers</groupId><artifactId>peers</artifactId><version>1</version><dependencies>'
      for a in "$@" org.apache.logging.log4j:log4j-slf4j-impl:2.25.1 org.apache.logging.log4j:log4j-core:2.25.1; do
        IFS=: read -r group artifact version <<<"$a"
        echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
      done
      echo '</dependencies></project>'
    } >"$new/pom.xml"
    (cd "$new" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=. >&2)
    # The tools speak on standard error from WARN up; KAFKA_LOG_LEVEL=INFO shows more.
    printf '%s\n' 'status = error' 'appender.err.type = Console' 'appender.err.name = err' \
      'appender.err.target = SYSTEM_ERR' 'appender.err.layout.type = PatternLayout' \
      'appender.err.layout.pattern = [%d] %p %m (%c{1})%n' 'rootLogger.level = ${env:KAFKA_LOG_LEVEL:-WARN}' \
      'rootLogger.appenderRef.err.ref = err' >"$new/log4j2.properties"
    touch "$new/complete"
    rm -rf "$dir"; mv "$new" "$dir"
  fi
  echo "$dir"
}

# The jars of Apache Kafka and its tools (60 MB); those of Connect with its file connectors, and of Streams (120 MB).
jars() { maven kafka-4.3.1 org.apache.kafka:kafka_2.13:4.3.1 org.apache.kafka:kafka-tools:4.3.1; }
application_jars() {
  local k=org.apache.kafka v=4.3.1
  maven applications-$v "$k:connect-runtime:$v" "$k:connect-file:$v" "$k:connect-json:$v" "$k:kafka-streams:$v"
}

# The version of what was run, as a jar's name (FOLDER ARTIFACT) or as the tools themselves say it.
jar_version() { local jar=("$1/$2"-[0-9]*.jar); jar=${jar[0]##*/"$2"-}; echo "${jar%.jar}"; }
tools_version() { "$here/kafka-tool" topics --version; }

# wait_port PORT SECONDS PID [ADDRESS]
wait_port() {
  local deadline=$((SECONDS + $2))
  until (exec 3<>"/dev/tcp/${4:-127.0.0.1}/$1") 2>/dev/null; do
    kill -0 "$3" 2>/dev/null && ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# running PIDFILE; stop_pid PIDFILE: only what the scripts of this folder started, by its id
running() { [[ -e $1 ]] && kill -0 "$(<"$1")" 2>/dev/null; }
stop_pid() {
  [[ -e $1 ]] || return 0
  local pid; pid=$(<"$1"); kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$1"
}

# share_classes ARCHIVE COMMAND…: several hundred JVMs start, each with the same classes: an archive of them, written when the
# command, a tool, ends, saves half of each start.
share_classes() {
  local archive=$1; shift
  (export KAFKA_OPTS="-XX:ArchiveClassesAtExit=$archive"; "$@") >/dev/null 2>&1 || true
  [[ ! -e $archive ]] || export KAFKA_OPTS="-XX:SharedArchiveFile=$archive -Xshare:auto"
}
