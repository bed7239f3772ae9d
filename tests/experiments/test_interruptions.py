"""Tests that an interrupted run continues by the same command and ends with the same numbers.

Real processes are stopped, killed, or deprived of their data or disk space.
"""

import functools
import json
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

from gatprune_jax.runs.lock import OWNER
from tests.data.directories import photograph
from tests.experiments.mains import (
  SMALL,
  begin,
  command,
  contents,
  environment,
  metrics,
  result,
  run,
  wait_for,
)

SLOW = pytest.mark.slow
LONG = pytest.mark.long
FULL = os.environ.get("GATPRUNE_SLOW") == "1"  # whether to test the sizes that take minutes

QUICK = [
  *SMALL, "--config.criteria=('l1',)", "--config.search.updates=6", "--config.search.shortlist=1",
  "--config.finetune.epochs=3", "--config.checkpoints.updates=2", "--config.checkpoints.steps=4",
]  # fmt: skip
ROUNDS = [*QUICK, "--config.rounds=2", "--config.budgets.macs=0.3"]
IN_TURN = [*QUICK, "--config.finetune_side_by_side=False"]


def arrays(workdir, loop):
  """Returns every array of the newest checkpoint of a loop, by name."""
  place = os.path.join(workdir, "checkpoints", loop)
  newest = max(int(name) for name in os.listdir(place) if name.isdecimal())
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.restore(os.path.join(place, str(newest), "state"))


def assert_same_state(one, other, loop):
  """Asserts that two runs have the same last state of a loop, bit for bit.

  Args:
    one: a directory with checkpoints.
    other: another one.
    loop: the loop, a name below checkpoints.
  """
  states = arrays(one, loop), arrays(other, loop)
  assert states[0].keys() == states[1].keys()
  for name in states[0]:
    assert np.asarray(states[0][name]).tobytes() == np.asarray(states[1][name]).tobytes(), name


def assert_same_run(one, other, loop, ordered=True):
  """Asserts that two runs have the same result, metrics and last state of a loop, bit for bit.

  The names of the files must be the same too, and so must the masks of a search.

  Args:
    one: a workdir.
    other: another workdir.
    loop: the loop whose last state is compared, a name below checkpoints.
    ordered: whether the lines of metrics must have the same order.
  """
  assert result(one) == result(other)
  order = (lambda found: found) if ordered else functools.partial(sorted, key=json.dumps)
  assert order(metrics(one)) == order(metrics(other))
  assert_same_state(one, other, loop)
  if loop == "search":
    with (
      np.load(os.path.join(one, "masks.npz")) as a,
      np.load(os.path.join(other, "masks.npz")) as b,
    ):
      for name in a.files:
        np.testing.assert_array_equal(a[name], b[name])
  # A process that is killed cannot remove the file that says who has the lock.
  names = [set(os.listdir(workdir)) - {OWNER} for workdir in (one, other)]
  assert names[0] == names[1]


def finished(main, workdir, *arguments):
  done = run(main, f"--workdir={workdir}", *arguments)
  assert done.returncode == 0, done.stderr
  assert "Traceback" not in done.stderr
  return str(workdir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """Returns a function (main, arguments) -> workdir of a run that nothing interrupted."""
  made = {}

  def get(main, arguments):
    key = (main, *arguments)
    if key not in made:
      made[key] = finished(main, tmp_path_factory.mktemp("whole") / "run", *arguments)
    return made[key]

  return get


def lines(workdir, phase):
  return sum(line["phase"] == phase for line in metrics(workdir))


@pytest.mark.parametrize(
  ("main", "arguments", "phase", "after", "number"),
  [
    pytest.param("train", QUICK, "dense", 1, signal.SIGTERM, marks=SLOW),
    pytest.param("prune", QUICK, "dense", 2, signal.SIGTERM, marks=SLOW),
    pytest.param("prune", QUICK, "search", 3, signal.SIGINT, marks=LONG),
    pytest.param("prune", QUICK, "finetune", 1, signal.SIGTERM, marks=SLOW),
    pytest.param("prune", IN_TURN, "finetune", 1, signal.SIGTERM, marks=SLOW),
  ],
)
def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, main, arguments, phase, after, number):
  expected = whole(main, arguments)
  workdir = tmp_path / "run"
  process = begin(main, f"--workdir={workdir}", *arguments)
  assert wait_for(lambda: lines(workdir, phase) >= after, process)
  process.send_signal(number)
  _, words = process.communicate(timeout=300)
  assert process.returncode == 75, words
  assert f"{signal.Signals(number).name}: stopping after this step" in words
  assert "the same command goes on from there" in words
  assert "Traceback" not in words
  assert not (workdir / "result.json").exists()
  if phase == "search":
    assert int(arrays(workdir, "search")["step"]) >= after
  finished(main, workdir, *arguments)
  assert_same_run(expected, str(workdir), "training" if main == "train" else "search")


@pytest.mark.parametrize(
  ("phase", "number"),
  [
    pytest.param("search", signal.SIGKILL, marks=LONG),
    pytest.param("search", signal.SIGTERM, marks=SLOW),
    pytest.param("finetune", signal.SIGKILL, marks=SLOW),
  ],
)
def test_a_run_that_ends_in_its_second_round_goes_on_bit_for_bit(whole, tmp_path, phase, number):
  expected = Path(whole("prune", ROUNDS))
  workdir = tmp_path / "run"
  process = begin("prune", f"--workdir={workdir}", *ROUNDS)
  # Two updates, or four gradient steps, are what a checkpoint is saved after.
  saved = workdir / "round_2" / "checkpoints" / phase
  assert wait_for(lambda: saved.exists() and lines(workdir / "round_2", phase) >= 1, process)
  process.send_signal(number)
  process.communicate(timeout=300)
  assert process.returncode == (75 if number == signal.SIGTERM else -number)
  assert not (workdir / "result.json").exists()
  lines_of_first = lambda: (workdir / "round_1" / "metrics.jsonl").read_text().splitlines()
  searched = lambda: [line for line in lines_of_first() if '"search"' in line]
  first = searched()
  finished("prune", workdir, *ROUNDS)
  # The first round's search was not run again, or its lines would have other times.
  assert searched() == first != []
  assert_same_run(expected, workdir, "training")
  for folder in ("round_1", "round_2"):
    assert metrics(expected / folder) == metrics(workdir / folder)
    assert_same_state(expected / folder, workdir / folder, "search")
  variables = "pruned/variables.safetensors"
  assert (expected / variables).read_bytes() == (workdir / variables).read_bytes()


def test_a_second_signal_ends_at_once(tmp_path):
  # The signals arrive while the search is compiled, when Python itself would not handle signals for
  # seconds.
  workdir = tmp_path / "run"
  process = begin("prune", f"--workdir={workdir}", *QUICK)
  assert wait_for((workdir / "checkpoints" / "dense").exists, process)
  process.send_signal(signal.SIGTERM)
  time.sleep(0.2)
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=300)
  assert process.returncode == 128 + signal.SIGINT


@LONG
def test_killed_again_and_again_it_ends_with_the_same_numbers(whole, tmp_path):
  expected = whole("prune", QUICK)
  rng = random.Random(0)
  kills, workdir = 0, tmp_path / "0"
  longest = 15.0
  while kills < (20 if FULL else 2):
    since = time.monotonic()
    process = begin("prune", f"--workdir={workdir}", *QUICK)
    try:
      _, words = process.communicate(timeout=rng.uniform(2, longest))
    except subprocess.TimeoutExpired:
      process.kill()
      process.communicate()
      kills += 1
      continue
    assert process.returncode == 0, words
    longest = max(4.0, time.monotonic() - since)
    assert_same_run(expected, str(workdir), "search")
    workdir = tmp_path / str(kills)
  finished("prune", workdir, *QUICK)
  assert_same_run(expected, str(workdir), "search")


@LONG
def test_damaged_checkpoints_of_a_run_are_passed_over(whole, tmp_path):
  expected = whole("prune", QUICK)
  workdir = shutil.copytree(expected, tmp_path / "run")
  for name in ("result.json", "proposals.npz"):
    os.remove(workdir / name)
  for loop in ("dense", "search/3"):
    victim = max((workdir / "checkpoints" / loop).rglob("*"), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
  done = run("prune", f"--workdir={workdir}", *QUICK)
  assert done.returncode == 0, done.stderr
  for loop in ("dense", "search/3"):
    assert f"checkpoints/{loop} is damaged: " in done.stderr
    shutil.rmtree(workdir / "checkpoints" / f"{loop}.damaged")
  # The dense network was trained again after the search had written its lines, so the lines of
  # metrics have another order.
  assert_same_run(expected, str(workdir), "search", ordered=False)


def test_a_second_process_is_refused(whole, tmp_path):
  expected = whole("train", QUICK)
  workdir = tmp_path / "run"
  first = begin("train", f"--workdir={workdir}", *QUICK)
  assert wait_for((workdir / "config.json").exists, first)
  # Without the pause, the first process might finish before the second process begins.
  first.send_signal(signal.SIGSTOP)
  try:
    second = run("train", f"--workdir={workdir}", *QUICK)
  finally:
    first.send_signal(signal.SIGCONT)
  assert second.returncode == 1, first.communicate()
  (line,) = second.stderr.strip().splitlines()
  assert f"workdir {workdir} is in use by process {first.pid} on " in line
  _, words = first.communicate(timeout=300)
  assert first.returncode == 0, words
  assert_same_run(expected, str(workdir), "training")


@SLOW
def test_a_data_directory_that_vanishes_ends_in_a_sentence(tmp_path):
  data = tmp_path / "data"
  for label in ("a", "b"):
    (data / label).mkdir(parents=True)
    for index in range(30):
      photograph(index).save(data / label / f"{index}.png")
  arguments = [
    *QUICK, "--config.dataset=folder", f"--config.data_dir={data}", "--config.image_size=16",
    "--config.images.reward=16", "--config.images.select=8", "--config.images.test=8",
    "--config.dense.recipe.batch_size=8", "--config.dense.recipe.epochs=300",
    "--config.search.calibration_images=8", "--config.finetune.batch_size=8",
  ]  # fmt: skip
  workdir = tmp_path / "run"
  process = begin("train", f"--workdir={workdir}", *arguments)
  assert wait_for(lambda: lines(workdir, "dense") >= 2, process)
  shutil.move(data, tmp_path / "elsewhere")
  _, words = process.communicate(timeout=300)
  assert process.returncode == 1
  assert "Traceback" not in words
  last = words.strip().splitlines()[-1]
  assert last.startswith("error: ")
  assert str(data) in last
  # With the data back in place, the same command continues from the last checkpoint.
  shutil.move(tmp_path / "elsewhere", data)
  before = lines(workdir, "dense")
  process = begin("train", f"--workdir={workdir}", *arguments)
  assert wait_for(lambda: lines(workdir, "dense") > before, process)
  process.kill()
  process.communicate()


def in_small_file_system(script, tmp_path):
  """Runs a shell script in a namespace where $MOUNT is a file system of 1 MiB in memory."""
  mount = tmp_path / "mount"
  mount.mkdir()
  prepare = 'set -u; mount -t tmpfs -o size=1m tmpfs "$MOUNT" || exit 99\n'
  done = subprocess.run(
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", prepare + script],
    env={**environment(), "MOUNT": str(mount)}, capture_output=True, text=True, timeout=600,
    check=False,
  )  # fmt: skip
  if done.returncode == 99 or "unshare" in done.stderr:
    pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
  return done


@SLOW
def test_a_full_disk_ends_in_a_sentence_and_the_run_goes_on_with_more(whole, tmp_path):
  expected = whole("prune", QUICK)
  out = tmp_path / "out"
  arguments = " ".join(f'"{argument}"' for argument in command("prune", "--workdir=$MOUNT", *QUICK))
  done = in_small_file_system(
    f"""{arguments}; echo first $?
    mount -o remount,size=100m "$MOUNT"
    {arguments} >&2; echo second $?
    cp -r "$MOUNT" "{out}"
    """,
    tmp_path,
  )
  assert done.stdout.splitlines() == ["first 1", "second 0"], done.stderr
  (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert "No space left on device" in line or "cannot be written" in line
  assert "Traceback" not in done.stderr
  assert_same_run(expected, str(out), "search")


def test_a_read_only_workdir_ends_in_a_sentence(whole, tmp_path):
  stopped = shutil.copytree(whole("train", QUICK), tmp_path / "stopped")
  os.remove(stopped / "result.json")
  before = contents(stopped)
  arguments = " ".join(f'"{a}"' for a in command("train", f"--workdir={stopped}", *QUICK))
  done = in_small_file_system(
    f"""mount --bind "{stopped}" "{stopped}" && mount -o remount,bind,ro "{stopped}" || exit 99
    {arguments}; echo $?
    """,
    tmp_path,
  )
  assert done.stdout.split() == ["1"]
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith(f"error: workdir {stopped} cannot be written: Read-only file system")
  assert contents(stopped) == before


@SLOW
def test_memory_does_not_grow(tmp_path):
  """Compares the resident memory after the last update with that after an early update."""
  updates, early = (500, 50) if FULL else (60, 20)
  code = f"""
import json, os, sys
import psutil
from absl import app
from experiments import prune
from gatprune_jax.runs.logger import Loop
from experiments.common.app import start

sizes, record = [], Loop.record
def measured(self, line, values, shown=None):
  record(self, line, values, shown)
  if self._phase == "search":
    sizes.append(psutil.Process().memory_info().rss)
    if line == {updates}:
      print("sizes", sizes[{early} - 1], sizes[-1])
      sys.stdout.flush()
      os._exit(0)
Loop.record = measured
sys.argv[0] = "prune"
start(prune.main)
"""
  done = subprocess.run(
    [sys.executable, "-c", code, f"--workdir={tmp_path / 'run'}", *SMALL,
     f"--config.search.updates={updates}"],
    env=environment(), capture_output=True, text=True, timeout=3000, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  early_size, last = map(int, done.stdout.split()[-2:])
  assert last <= 1.05 * early_size
