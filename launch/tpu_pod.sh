#!/usr/bin/env bash
# Runs an experiment on all workers of a Cloud TPU slice, and goes on after preemptions.
#
#   launch/tpu_pod.sh OPTIONS -- NAME [FLAGS]     python -m experiments.NAME FLAGS --multihost
#
#   --slice=NAME        found, or created; one that was preempted is made anew
#   --zone=ZONE         such as us-west4-a
#   --share=HOST:/PATH  NFS export that outlives the slice; mounted as /mnt/gatprune
#   --run=NAME          the run: /mnt/gatprune/NAME is its workdir, do not give --workdir
#   --type=v5litepod-8  accelerator type
#   --version=v2-alpha-tpuv5-lite  its runtime
#   --capacity=spot     or `reserved`, or `on-demand`
#   --results=results   directory here that the finished run is copied to
#   --attempts=100      slices and starts that are tried
#   --pause=60          seconds between them
#   --dry_run           prints the commands and runs nothing
#
# Copies the commit that is checked out, without changes. Ends with the experiment's code, unless
# that is 75 (stopped, state saved) or the slice was lost: then it starts the same command again.

set -uo pipefail
type=v5litepod-8 version=v2-alpha-tpuv5-lite capacity=spot results=results attempts=100 pause=60
slice='' zone='' share='' run='' dry_run=''

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
options "slice zone share run type version capacity results" "attempts pause" "$@"
[[ $slice && $zone && $share && $run ]] || fail "give --slice, --zone, --share and --run"
[[ $capacity =~ ^(spot|reserved|on-demand)$ ]] ||
  fail "--capacity=$capacity: choose spot, reserved or on-demand"
[[ " ${command[*]}" != *" --workdir"* ]] || fail "--run=$run names the workdir: leave out --workdir"
commit=$(git rev-parse --short HEAD) || fail "run it in a checkout of the repository"

tpu=(gcloud compute tpus tpu-vm)
[[ $capacity == on-demand ]] && kind=() || kind=("--$capacity")
package=gatprune-$commit
# Nothing is done twice on a machine that has the commit. Python 3.11 comes with uv.
install="set -e; mountpoint -q /mnt/gatprune || {
  sudo apt-get update -q && sudo apt-get install -qy nfs-common && sudo mkdir -p /mnt/gatprune
  sudo mount -t nfs $(quote "$share") /mnt/gatprune && sudo chmod a+rwx /mnt/gatprune; }
[ -e $package/installed ] || {
  mkdir -p $package && tar -xzf $package.tar.gz -C $package && cd $package
  python3 -m pip install -q uv && python3 -m uv venv -q --clear --python 3.11
  python3 -m uv pip install -q -e . 'jax[tpu]' && touch installed; }"
# A run that a lost connection left behind ends first: one holds the lock.
start="cd $package && flock ../gatprune.lock $(quote .venv/bin/python -m "experiments.${command[0]}" \
  --workdir="/mnt/gatprune/$run" "${command[@]:1}" --multihost)"

# Sets `now` to the slice's state, empty where there is none. Fails where gcloud does.
find_slice() {
  local list=("${tpu[@]}" list --zone="$zone" --filter="name~/$slice\$" --format='value(state)')
  if [[ $dry_run ]]; then quote "${list[@]}"; else now=$("${list[@]}"); fi
}

on_all() { run "${tpu[@]}" ssh "$slice" --zone="$zone" --worker=all --command="$1"; }

for ((attempt = 1; attempt <= attempts; attempt++)); do
  now='' && find_slice || exit 1
  if [[ $now == PREEMPTED || $now == TERMINATED ]]; then
    run "${tpu[@]}" delete "$slice" --zone="$zone" --quiet && now=''
  fi
  { [[ $now ]] || run "${tpu[@]}" create "$slice" --zone="$zone" --accelerator-type="$type" \
    --version="$version" "${kind[@]}"; } &&
    run git archive --format=tar.gz --output="/tmp/$package.tar.gz" "$commit" &&
    run "${tpu[@]}" scp "/tmp/$package.tar.gz" "$slice:" --zone="$zone" --worker=all &&
    on_all "$install" && on_all "$start"
  code=$?
  ((code != 75)) || continue
  if ((code == 0)); then
    run mkdir -p "$results"
    run "${tpu[@]}" scp --recurse "$slice:/mnt/gatprune/$run" "$results" --zone="$zone" --worker=0
    exit
  fi
  sleep "$pause" # gcloud says 1 for a lost slice too; its state tells, a little later
  find_slice || exit 1
  [[ $now != READY || $code == 255 ]] || exit "$code"
done
fail "$attempts attempts have not finished the run; the same command goes on"
