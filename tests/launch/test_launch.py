"""Tests of the launch scripts: printed commands, refused options, and real runs on this machine."""

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from tests.compiler import quickly
from tests.experiments.mains import SMALL
from tests.launch import slurm

SCRIPTS = ("local", "slurm", "tpu_pod")
TPU = ("--slice=pod", "--zone=us-west4-a", "--share=10.0.0.2:/share", "--run=first")


def launch(script, *arguments, **options):
  return subprocess.run(
    [f"launch/{script}.sh", *arguments], capture_output=True, text=True, timeout=500, check=False,
    **options,
  )  # fmt: skip


def dry_run(script, *arguments):
  environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  done = launch(script, "--dry_run", *arguments, env=environment)
  assert (done.returncode, done.stderr) == (0, "")
  return done.stdout


def test_local_would_start_these_processes():
  assert dry_run(
    "local", "--processes=2", "--devices=4", "--port=1234", "--",
    "prune", "--workdir=/tmp/a run", "--config.search.updates=3",
  ) == """\
env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 \
.venv/bin/python -m experiments.prune '--workdir=/tmp/a run' --config.search.updates=3 \
--multihost --coordinator=localhost:1234 --num_processes=2 --process_id=0 &
env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 \
.venv/bin/python -m experiments.prune '--workdir=/tmp/a run' --config.search.updates=3 \
--multihost --coordinator=localhost:1234 --num_processes=2 --process_id=1 &
"""  # fmt: skip


def test_slurm_would_submit_this_job():
  assert dry_run(
    "slurm", "--nodes=2", "--tasks=8", "--gpus=8", "--partition=long", "--",
    "prune", "--workdir=/shared/run",
  ) == """\
sbatch --job-name=gatprune --nodes=2 --ntasks-per-node=8 --cpus-per-task=4 --time=24:00:00 \
--signal=TERM@300 --requeue --open-mode=append --output=gatprune-%j.out --gpus-per-node=8 \
--partition=long '--wrap=srun --kill-on-bad-exit=0 --cpus-per-task=4 \
.venv/bin/python -m experiments.prune --workdir=/shared/run --multihost
code=$?
[ $code -ne 75 ] || exec scontrol requeue $SLURM_JOB_ID
exit $code'
"""  # fmt: skip


@pytest.mark.skipif(not os.path.exists(".git"), reason="not in a checkout, which the slice gets")
def test_tpu_pod_would_create_install_run_and_fetch():
  commit = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
  ).stdout.strip()
  tpu, package = "gcloud compute tpus tpu-vm", f"gatprune-{commit}"
  assert (
    dry_run("tpu_pod", *TPU, "--", "prune", "--config.seed=1")
    == f"""\
{tpu} list --zone=us-west4-a '--filter=name~/pod$' '--format=value(state)'
{tpu} create pod --zone=us-west4-a --accelerator-type=v5litepod-8 \
--version=v2-alpha-tpuv5-lite --spot
git archive --format=tar.gz --output=/tmp/{package}.tar.gz {commit}
{tpu} scp /tmp/{package}.tar.gz pod: --zone=us-west4-a --worker=all
{tpu} ssh pod --zone=us-west4-a --worker=all '--command=set -e; mountpoint -q /mnt/gatprune || {{
  sudo apt-get update -q && sudo apt-get install -qy nfs-common && sudo mkdir -p /mnt/gatprune
  sudo mount -t nfs 10.0.0.2:/share /mnt/gatprune && sudo chmod a+rwx /mnt/gatprune; }}
[ -e {package}/installed ] || {{
  mkdir -p {package} && tar -xzf {package}.tar.gz -C {package} && cd {package}
  python3 -m pip install -q uv && python3 -m uv venv -q --clear --python 3.11
  python3 -m uv pip install -q -e . '\\''jax[tpu]'\\'' && touch installed; }}'
{tpu} ssh pod --zone=us-west4-a --worker=all '--command=cd {package} && \
flock ../gatprune.lock .venv/bin/python -m experiments.prune --workdir=/mnt/gatprune/first \
--config.seed=1 --multihost'
mkdir -p results
{tpu} scp --recurse pod:/mnt/gatprune/first results --zone=us-west4-a --worker=0
"""
  )


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_printed_is_read_back_as_the_same_words(script):
  # The word has quotes within quotes, and the shell itself decides whether it is read back.
  word = """--config.criteria=('l1',"a b",$HOME\\n)"""
  options = TPU if script == "tpu_pod" else ()
  lines = dry_run(script, *options, "--", "prune", word)
  shown = "() { printf '<%s>' \"$@\"; }"  # replaces the commands of the printed lines
  functions = f"""
    env{shown}; srun{shown}; flock{shown}; sbatch() {{ word=${{*: -1}}; eval "${{word#--wrap=}}"; }}
    git() {{ :; }}; mkdir() {{ :; }}; cd() {{ :; }}; exit() {{ :; }}
    gcloud() {{ [[ $* != *flock* ]] || {{ word=${{*: -1}}; eval "${{word#--command=}}"; }}; }}
  """
  read = subprocess.run(
    ["bash", "-c", functions + lines], capture_output=True, text=True, check=False
  )
  assert f"<{word}>" in read.stdout, read.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option(script):
  done = launch(script, "--help")
  assert (done.returncode, done.stderr) == (0, "")
  assert f"launch/{script}.sh" in done.stdout
  with open(f"launch/{script}.sh") as file:
    line = next(line for line in file if line.startswith("options "))
  for name in line.replace('"', " ").split()[1:-1]:
    if name != "$@":
      assert f"  --{name}=" in done.stdout
  assert "  --dry_run" in done.stdout


REFUSED = {
  "unknown option": (["--colour=red", "--", "prune"], "--colour is not an option of launch/"),
  "no experiment": (["--"], "name an experiment after --, as in -- prune --workdir=DIR"),
  "no dashes": (["prune"], "prune is not an option of launch/"),
  "flag for experiment": (["--", "--workdir=x"], "name an experiment after --"),
  "no value": (["--port=", "--", "prune"], "--port= is not an option of launch/"),
}
REFUSED = {(script, case): REFUSED[case] for script in SCRIPTS for case in REFUSED} | {
  ("local", "count"): (["--processes=0", "--", "prune"], "--processes=0: it must be a positive"),
  ("local", "program"): (["--python=/no", "--", "prune"], "--python=/no is not a program"),
  ("slurm", "count"): (["--nodes=two", "--", "prune"], "--nodes=two: it must be a positive"),
  ("slurm", "devices"): (["--gpus=4", "--", "prune"], "--gpus=4 and --tasks=1: JAX gives each"),
  ("tpu_pod", "slice"): (["--", "prune"], "give --slice, --zone, --share and --run"),
  ("tpu_pod", "capacity"): ([*TPU, "--capacity=big", "--", "prune"], "--capacity=big: choose"),
  ("tpu_pod", "workdir"): ([*TPU, "--", "prune", "--workdir=x"], "leave out --workdir"),
}


@pytest.mark.parametrize(("script", "case"), REFUSED)
def test_bad_options_end_in_one_sentence(script, case):
  arguments, words = REFUSED[script, case]
  done = launch(script, *arguments)
  assert (done.returncode, done.stdout) == (1, "")
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ")
  assert words in line


def test_scripts_are_short_and_clean():
  paths = [f"launch/{name}" for name in sorted(os.listdir("launch")) if name.endswith(".sh")]
  assert len(paths) == 4
  for path in paths:
    with open(path) as file:
      assert len(file.readlines()) < 80
  beside = os.path.join(os.path.dirname(sys.executable), "shellcheck")
  shellcheck = shutil.which("shellcheck") or shutil.which(beside)
  if not shellcheck:
    pytest.skip("shellcheck is not installed: pip install -e '.[test]'")
  done = subprocess.run(
    [shellcheck, "--external-sources", *paths], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout


def test_local_hands_on_a_clear_error(tmp_path):
  done = launch(
    "local", f"--python={sys.executable}", "--", "prune", f"--workdir={tmp_path / 'run'}",
    "--config.budgets.macs=1.5",
  )  # fmt: skip
  assert done.returncode == 1
  assert "budget 1.5 for macs" in done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "signals",
  [
    pytest.param([signal.SIGTERM], marks=pytest.mark.long),
    pytest.param([signal.SIGINT], marks=pytest.mark.slow),
  ],
)
def test_local_stops_all_processes_and_goes_on(tmp_path, signals):
  metrics = tmp_path / "run" / "metrics.jsonl"
  # A shell cannot trap a signal that was ignored when the shell began. SIGINT is ignored for tests
  # that run in the background of a shell, so `env` restores its default.
  command = [
    "env", "--default-signal=INT", f"XLA_FLAGS={quickly()}", "launch/local.sh",
    f"--python={sys.executable}", "--processes=2", "--devices=2", "--",
    "train", f"--workdir={tmp_path / 'run'}", *SMALL, "--config.dense.recipe.epochs=8",
  ]  # fmt: skip
  for number in signals:
    before = size(metrics)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    slurm.wait_for(lambda before=before: size(metrics) > before, 300)
    running.send_signal(number)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 75, errors
    assert processes_with(str(tmp_path)) == []
  done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("select accuracy") == 1  # only process 0 prints
  assert (tmp_path / "run" / "result.json").exists()


def size(path):
  return path.stat().st_size if path.exists() else 0


def processes_with(word):
  """Returns the command lines of all processes whose command line contains the word."""
  lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
  return [line for line in lines if word in line]


@pytest.mark.skipif(bool(slurm.missing()), reason=f"Slurm is not installed: {slurm.missing()}")
@pytest.mark.slow
def test_slurm_saves_requeues_and_finishes(tmp_path):
  with slurm.one_node(cpus=4) as environment:
    done = launch(
      "slurm", f"--python={sys.executable}", "--tasks=2", "--cpus=1", f"--job={tmp_path / 'job'}",
      "--", "prune", f"--workdir={tmp_path / 'run'}", *SMALL, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]

    def call(*command):
      return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
      ).stdout

    def shows(*texts):
      return lambda: any(text in call("scontrol", "show", "job", job) for text in texts)

    slurm.wait_for(lambda: size(tmp_path / "run" / "metrics.jsonl") > 0, 300)
    call("scancel", "--signal=TERM", job)
    slurm.wait_for(shows("Restarts=1"), 120)
    call("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait two minutes
    # A requeued job passes through other states before it is pending again.
    slurm.wait_for(shows(*(f"JobState={state}" for state in slurm.FINAL_STATES)), 900)
    out = (tmp_path / f"job-{job}.out").read_text()
    assert shows("JobState=COMPLETED")(), out
    assert out.count("| agent ") == 1
    assert (tmp_path / "run" / "result.json").exists()
