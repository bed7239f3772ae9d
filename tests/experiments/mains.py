"""Functions that run the mains in processes of their own, and read what the mains write."""

import json
import multiprocessing
import os
from pathlib import Path
import runpy
import socket
import subprocess
import sys
import tempfile
import time

from tests.compiler import quickly

# These arguments run every part of a main, on a network that learns nothing in so short a time.
_SHORT = [
  "--config.dense.recipe.epochs=3", "--config.finetune.epochs=2",
  "--config.search.updates=2", "--config.search.samples=4", "--config.search.policy.layers=1",
  "--config.search.shortlist=2", "--config.search.calibration_images=64",
  "--config.search.refinement=8",
  "--config.search.adaptation.steps=2", "--config.search.adaptation.batch_size=16",
  "--config.criteria=('random','l1','bn_scale')",
]  # fmt: skip
RESNET = ["--config.model.widths=(4,6,8)", *_SHORT]
# A network of two convolutions is traced and compiled in half the time of a ResNet-8.
SMALL = ["--config.model.factory=tests.experiments.tiny:make", *_SHORT]


def environment(devices=None):
  """Returns the environment variables for a main.

  Args:
    devices: number of CPU devices; None leaves as many as the machine has.
  """
  count = "" if devices is None else f"--xla_force_host_platform_device_count={devices}"
  return {**os.environ, "XLA_FLAGS": f"{count} {quickly()}"}


def command(main, *arguments):
  return [sys.executable, "-m", f"experiments.{main}", *arguments]


# The processes that `run` starts are forked from a server that has imported what all mains import,
# because importing it anew takes seconds each time.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["experiments.common.app", "experiments.common.preparing"])


def run(main, *arguments, devices=None):
  """Runs a main in a process of its own, and returns its exit code, output and errors.

  Args:
    main: name of the module in `experiments`.
    *arguments: arguments of the command line.
    devices: number of CPU devices; None leaves as many as the machine has.
  """
  with tempfile.TemporaryDirectory() as folder:
    out, err = Path(folder, "out"), Path(folder, "err")
    process = _FORKS.Process(target=_run, args=(main, arguments, environment(devices), out, err))
    process.start()
    process.join(600)
    if process.is_alive():
      process.kill()
      raise TimeoutError(f"{main} does not end: {err.read_text()}")
    return subprocess.CompletedProcess(
      command(main, *arguments), process.exitcode, out.read_text(), err.read_text()
    )


def _run(main, arguments, variables, out, err):
  """Does in a forked process what `python -m` does in a new one.

  Args:
    main: name of the module in `experiments`.
    arguments: arguments of the command line.
    variables: the environment.
    out: path of the file for stdout.
    err: path of the file for stderr.
  """
  for stream, path in ((1, out), (2, err)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
  os.environ.update(variables)
  sys.path[:0] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
  sys.dont_write_bytecode = True  # otherwise Python writes a compiled config beside it
  sys.argv = [main, *arguments]
  runpy.run_module(f"experiments.{main}", run_name="__main__", alter_sys=True)


def begin(main, *arguments, devices=None):
  """Starts a main and returns its process without waiting.

  Args:
    main: name of the module in `experiments`.
    *arguments: arguments of the command line.
    devices: number of CPU devices; None leaves as many as the machine has.
  """
  return subprocess.Popen(
    command(main, *arguments), env=environment(devices), stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip


def begin_all(main, processes, devices, *arguments):
  """Starts a main as several processes that work together, and returns them.

  Args:
    main: name of the module in `experiments`.
    processes: number of processes.
    devices: number of CPU devices of each process.
    *arguments: arguments of the command line, the same for all processes.
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  together = ("--multihost", f"--coordinator={address}", f"--num_processes={processes}")
  return [
    begin(main, *arguments, *together, f"--process_id={i}", devices=devices)
    for i in range(processes)
  ]


def ended(processes):
  """Waits for all processes, and returns exit code, output and errors of each."""
  outputs = [process.communicate(timeout=600) for process in processes]
  return [(process.returncode, *words) for process, words in zip(processes, outputs, strict=True)]


def metrics(workdir):
  """Returns the complete lines of metrics.jsonl, without their times."""
  path = os.path.join(workdir, "metrics.jsonl")
  if not os.path.exists(path):
    return []
  with open(path) as file:
    lines = [json.loads(line) for line in file if line.endswith("\n")]
  for line in lines:
    del line["seconds"]
  return lines


def result(workdir):
  """Returns the content of result.json, without its times."""
  with open(os.path.join(workdir, "result.json")) as file:
    content = json.load(file)
  content.pop("seconds", None)
  content.get("search", {}).pop("seconds", None)
  return content


def wait_for(condition, process, seconds=300):
  """Waits for a condition, and returns whether it held before the process ended or time ran out.

  Args:
    condition: a function without arguments that returns a bool.
    process: the process that is expected to fulfil the condition.
    seconds: the longest time to wait.
  """
  end = time.monotonic() + seconds
  while not condition():
    if process.poll() is not None or time.monotonic() > end:
      return condition()
    time.sleep(0.01)
  return True


def contents(directory):
  """Returns {path: bytes} of every file below a directory."""
  found = {}
  for root, _, files in os.walk(directory):
    for name in files:
      path = os.path.join(root, name)
      with open(path, "rb") as file:
        found[path] = file.read()
  return found
