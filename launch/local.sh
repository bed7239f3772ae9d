#!/usr/bin/env bash
# Runs an experiment as several processes on this machine, on CPU devices.
#
#   launch/local.sh [OPTIONS] -- NAME [FLAGS]     python -m experiments.NAME FLAGS
#
#   --processes=2      processes
#   --devices=1        CPU devices of each process
#   --port=PORT        of the coordinator; another one for each run unless given
#   --patience=300     seconds that the others have to end in once one process has failed
#   --python=PYTHON    .venv/bin/python unless given
#   --dry_run          prints the commands and runs nothing
#
# Shows what process 0 prints, and the errors of another one if that is the first to fail.
# SIGTERM and SIGINT go to all processes, SIGHUP as SIGTERM; a second one ends them at once. The exit
# code is the first that is not 0; after 75 (stopped, state saved) the same command continues.

set -uo pipefail
processes=2 devices=1 port=$((10000 + $$ % 20000)) patience=300 python=.venv/bin/python dry_run='' limit=''

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
options "python" "processes devices port patience" "$@"
flags=("${command[@]:1}" --multihost --coordinator="localhost:$port" --num_processes="$processes")
program=(
  env JAX_PLATFORMS=cpu
  "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
  "$python" -m "experiments.${command[0]}" "${flags[@]}"
)

if [[ $dry_run ]]; then
  for ((index = 0; index < processes; index++)); do
    echo "$(quote "${program[@]}" --process_id="$index") &"
  done
  exit
fi
[[ -x $(type -P "$python") ]] || fail "--python=$python is not a program"

# --- Each process in a group of its own, so that Ctrl-C reaches this script alone.
errors=$(mktemp -d) groups=() code=0
trap 'rm -r "$errors"' EXIT
mkfifo "$errors/endings"
exec 3<>"$errors/endings" # "INDEX CODE" of each that ended
set -m
# shellcheck disable=SC2064 # now: the signal's name
for signal in TERM INT; do trap "kill -$signal -- \"\${groups[@]}\" 2>/dev/null" $signal; done
trap 'kill -TERM -- "${groups[@]}" 2>/dev/null' HUP # Python saves nothing on SIGHUP
for ((index = 0; index < processes; index++)); do
  {
    trap : TERM INT HUP # outlives the program, to tell how it ended
    if ((index == 0)); then
      "${program[@]}" --process_id=0 3>&-
    else
      "${program[@]}" --process_id="$index" >/dev/null 2>"$errors/$index" 3>&-
    fi
    echo "$index $?" >&3
  } &
  groups[index]=-$!
done

# --- Until all have ended; once one has failed, the others in time or by force.
while ((${#groups[@]})) && read -r ${limit:+-t "$limit"} index status <&3; do
  unset "groups[index]"
  ((status == 0 || code != 0)) || code=$status first=$index limit=$patience
done
if ((${#groups[@]})); then
  echo "error: killed what still ran $patience seconds after process $first had failed" >&2
  { kill -KILL -- "${groups[@]}" && wait; } 2>/dev/null
fi

if ((code != 0 && code != 75 && first != 0)); then
  echo "error: process $first ended with code $code:" >&2
  tail -n 30 "$errors/$first" >&2
fi
exit "$code"
