# What the launch scripts share. They source it.
# shellcheck shell=bash

# Ends with one sentence.
fail() {
  echo "error: $*" >&2
  exit 1
}

# Prints a command so that a shell reads back the same words.
quote() {
  local word line=
  for word; do
    [[ $word =~ ^[[:alnum:]%+,./:=@_-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

# Runs a command, or only prints it in a dry run.
run() {
  if [[ $dry_run ]]; then quote "$@"; else "$@"; fi
}

# Sets the options in front of --, each the variable of its name: options "NAMES" "NUMBERS" ARGS.
# Leaves what comes after -- in `command`.
options() {
  local names=" $1 " numbers=" $2 " argument name value
  shift 2
  while [[ $# -gt 0 && $1 != -- ]]; do
    argument=$1 name=${1%%=*} value=${1#*=}
    name=${name#--}
    shift
    case $argument in
      --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
      --dry_run) dry_run=1 ;;
      --*=?*)
        [[ $names$numbers == *" $name "* ]] || fail "--$name is not an option of $0: see --help"
        [[ $numbers != *" $name "* || $value =~ ^[1-9][0-9]*$ ]] ||
          fail "--$name=$value: it must be a positive whole number"
        printf -v "$name" %s "$value"
        ;;
      *) fail "$argument is not an option of $0: see --help; flags of the experiment follow --" ;;
    esac
  done
  [[ $# -gt 1 && $2 != -* ]] || fail "name an experiment after --, as in -- prune --workdir=DIR"
  # shellcheck disable=SC2034
  command=("${@:2}")
}
