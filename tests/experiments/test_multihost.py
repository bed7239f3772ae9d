"""Tests of the mains as several processes with several devices: their results and their end."""

import os
import signal

import numpy as np
import pytest

from tests.experiments.mains import (
  SMALL,
  begin,
  begin_all,
  ended,
  metrics,
  result,
  run,
  wait_for,
)

SLOW = pytest.mark.slow
LONG = (*SMALL, "--config.dense.recipe.epochs=100000", "--config.checkpoints.steps=10")


def completed(main, processes, devices, *arguments):
  """Runs a main to its end, and returns what it printed.

  Args:
    main: name of the main.
    processes: number of processes; 1 is a plain run without `--multihost`.
    devices: number of CPU devices of each process.
    *arguments: its arguments.
  """
  if processes == 1:
    running = [begin(main, *arguments, devices=devices)]
  else:
    running = begin_all(main, processes, devices, *arguments)
  (code, printed, errors), *others = ended(running)
  assert code == 0, errors
  assert others == [(0, "", "")] * (processes - 1)
  return printed


def pruned(place, processes, devices, dense):
  """Prunes the network of the workdir `dense`; returns metrics, result and masks."""
  workdir = str(place / "run")
  arguments = f"--workdir={workdir}", f"--config.dense.checkpoint={dense}", *SMALL
  assert "| agent " in completed("prune", processes, devices, *arguments)
  with np.load(os.path.join(workdir, "masks.npz")) as masks:
    return metrics(workdir), result(workdir), dict(masks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns the workdir in which one process with one device has trained the dense network."""
  workdir = str(tmp_path_factory.mktemp("trained") / "run")
  completed("train", 1, 1, f"--workdir={workdir}", *SMALL)
  return workdir


@pytest.fixture(scope="module")
def plain(tmp_path_factory, trained):
  return pruned(tmp_path_factory.mktemp("plain"), 1, 1, trained)


@pytest.mark.parametrize(
  ("processes", "devices"),
  [
    pytest.param(2, 2, marks=pytest.mark.long),
    *(pytest.param(*layout, marks=SLOW) for layout in ((1, 3), (1, 4), (1, 8), (2, 4), (4, 2))),
  ],
)
def test_a_run_does_not_depend_on_processes_and_devices(
  processes, devices, plain, trained, tmp_path
):
  # A search from a dense network that is equal but for rounding may sample other masks in the end,
  # so that all runs start from the same network. Its training is compared by itself.
  completed("train", processes, devices, f"--workdir={tmp_path / 'dense'}", *SMALL)
  assert_same_lines(metrics(str(tmp_path / "dense")), metrics(trained))
  lines, final, masks = pruned(tmp_path, processes, devices, trained)
  assert final == plain[1]
  assert masks.keys() == plain[2].keys()
  for name, mask in masks.items():
    np.testing.assert_array_equal(mask, plain[2][name])
  assert_same_lines(lines, plain[0])


def assert_same_lines(lines, others):
  """Compares all metrics of two runs, but for rounding."""
  for line, expected in zip(lines, others, strict=True):
    assert line.keys() == expected.keys()
    for name, value in expected.items():
      if name == "phase":
        assert line[name] == value
      else:
        told = f"{expected['phase']} {expected['step']}: {name}"
        numbers = [np.array(each, np.float64) for each in (line[name], value)]  # null becomes NaN
        if name == "explained":
          # `explained` is one minus a ratio of variances near one, and rounding errors are relative
          # to that ratio.
          numbers = [1 - each for each in numbers]
        np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1e-7, err_msg=told)


def beyond_an_epoch(workdir, processes):
  """Waits until the dense network is being trained."""
  assert wait_for(lambda: len(metrics(workdir)) > 1, processes[0]), processes[0].communicate()[1]


@pytest.mark.parametrize(
  "victim", [pytest.param(0, marks=pytest.mark.long), pytest.param(1, marks=SLOW)]
)
def test_where_a_process_is_killed_the_others_end_and_name_it(victim, tmp_path):
  workdir = str(tmp_path / "run")
  running = begin_all("train", 2, 1, f"--workdir={workdir}", *LONG, "--silence=3")
  beyond_an_epoch(workdir, running)
  running[victim].kill()
  codes = ended(running)
  assert codes[victim][0] == -signal.SIGKILL
  code, _, errors = codes[1 - victim]
  assert code == 1
  told = [line for line in errors.splitlines() if line and not line.startswith("dense epoch")]
  assert told == [
    f"error: process {victim} is gone: it was silent for 3 s; this one ends too, and the same "
    "commands go on from the last checkpoint"
  ]
  if victim == 1:  # one of the two cases is enough
    arguments = ("train", f"--workdir={workdir}", *LONG)
    goes_on(workdir, begin_all(arguments[0], 2, 1, *arguments[1:]))
    goes_on(workdir, [begin(*arguments)])


def goes_on(workdir, running):
  """Asserts that a run trains new epochs and does not train earlier epochs again."""
  before, seen = len(metrics(workdir)), []

  def more():
    seen.append(len(metrics(workdir)))
    return seen[-1] > before + 2

  assert wait_for(more, running[0]), running[0].communicate()[1]
  assert min(seen) > before - 5  # loses at most the epochs after the last checkpoint
  assert [line["step"] for line in metrics(workdir)] == list(range(1, len(metrics(workdir)) + 1))
  for process in running:
    process.kill()
  ended(running)


@SLOW
def test_a_process_that_hangs_is_gone(tmp_path):
  workdir = str(tmp_path / "run")
  running = begin_all("train", 2, 1, f"--workdir={workdir}", *LONG, "--silence=3")
  beyond_an_epoch(workdir, running)
  running[1].send_signal(signal.SIGSTOP)
  (process,) = running[:1]
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 1
  assert "error: process 1 is gone" in errors
  running[1].kill()
  running[1].communicate()


@SLOW
def test_all_stop_where_one_is_asked_to_and_go_on_in_any_number(tmp_path):
  arguments = (*SMALL, "--config.dense.recipe.epochs=60")
  workdir = str(tmp_path / "run")
  running = begin_all("train", 2, 1, f"--workdir={workdir}", *arguments)
  beyond_an_epoch(workdir, running)
  running[1].send_signal(signal.SIGTERM)
  for code, _, errors in ended(running):
    assert code == 75, errors
    assert "which is saved in" in errors
  before = len(metrics(workdir))
  assert 1 < before < 60
  ((code, _, errors),) = ended([begin("train", f"--workdir={workdir}", *arguments, devices=3)])
  assert code == 0, errors
  assert [line["step"] for line in metrics(workdir)] == list(range(1, 61))


def test_what_one_process_refuses_ends_all(tmp_path):
  (tmp_path / "run").write_text("a file")
  running = begin_all("train", 2, 1, f"--workdir={tmp_path / 'run'}", *SMALL)
  for code, printed, errors in ended(running):
    assert code == 1
    assert printed == ""
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ")
    assert "run is a file: give a directory" in line


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      ["--num_processes=2"],
      "--coordinator, --num_processes and --process_id need --multihost: add it",
    ),
    (
      ["--multihost", "--coordinator=localhost", "--num_processes=2", "--process_id=0"],
      "--coordinator=localhost has no port: give HOST:PORT",
    ),
  ],
)
def test_flags_that_do_not_describe_several_processes_are_refused(flags, message, tmp_path):
  refused = run("train", f"--workdir={tmp_path / 'run'}", *flags)
  assert refused.returncode == 1
  assert refused.stderr == f"error: {message}\n"
