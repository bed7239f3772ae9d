#!/usr/bin/env bash
# Submits an experiment to Slurm: one process for each GPU, or for each task on CPUs.
#
#   launch/slurm.sh [OPTIONS] -- NAME [FLAGS]     python -m experiments.NAME FLAGS --multihost
#
#   --nodes=1           machines
#   --tasks=1           processes on each
#   --gpus=0            GPUs on each, as many as tasks: JAX gives each process one
#   --cpus=4            CPU cores of each process
#   --time=24:00:00     limit of one stretch; the job then saves, and goes on in another
#   --warning=300       seconds before the limit at which it starts to save
#   --partition=NAME    Slurm's default unless given
#   --job=gatprune      name of the job; its output is in NAME-ID.out
#   --python=PYTHON     .venv/bin/python unless given
#   --dry_run           prints the command and runs nothing
#
# What else sbatch is to know goes in its environment variables, such as SBATCH_ACCOUNT.
# Run it from the root of the repository, on a file system that all machines share. The job is
# requeued when the experiment ends with code 75 (stopped, state saved) and ends on any other;
# `scancel --signal=TERM ID` therefore makes it save and start again, `scancel ID` ends it.

set -euo pipefail
nodes=1 tasks=1 gpus=0 cpus=4 time=24:00:00 warning=300 job=gatprune python=.venv/bin/python
partition='' dry_run=''

# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
options "time partition job python gpus" "nodes tasks cpus warning" "$@"
[[ $gpus == 0 || $gpus == "$tasks" ]] ||
  fail "--gpus=$gpus and --tasks=$tasks: JAX gives each process one GPU, so they must be equal"

# Other processes may still be saving when one has ended: srun must not kill them.
program=("$python" -m "experiments.${command[0]}" "${command[@]:1}" --multihost)
script="srun --kill-on-bad-exit=0 --cpus-per-task=$cpus $(quote "${program[@]}")
code=\$?
[ \$code -ne 75 ] || exec scontrol requeue \$SLURM_JOB_ID
exit \$code"

submit=(
  sbatch --job-name="$job" --nodes="$nodes" --ntasks-per-node="$tasks" --cpus-per-task="$cpus"
  --time="$time" --signal="TERM@$warning" --requeue --open-mode=append --output="$job-%j.out"
)
((gpus == 0)) || submit+=(--gpus-per-node="$gpus")
[[ ! $partition ]] || submit+=(--partition="$partition")
run "${submit[@]}" --wrap="$script"
