"""Tests that the count of activations in memory is what XLA plans for."""

import os
import subprocess
import sys

import pytest

from tests.experiments.mains import run


def run_memory(*arguments):
  """Runs the main in a process whose programs are compiled as users compile them."""
  environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.getcwd()}
  command = [sys.executable, "-m", "experiments.memory", *arguments]
  return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
  "network",
  [
    "resnet20:32",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ("resnet50:224", "vgg16:224", "mobilenet_v2:224", "densenet40:32")
    ),
  ],
)
def test_the_count_is_within_a_tenth_of_the_plan(network):
  done = run_memory(f"--networks={network}", "--masks=1", "--batch=2")
  assert done.returncode == 0, done.stderr
  rows = [line.strip("| ").split("|") for line in done.stdout.splitlines()[2:]]
  assert len(rows) == 2
  for row in rows:
    assert abs(float(row[5]) - 1) <= 0.1, row


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("--networks=resnet20", "--networks has 'resnet20': give NAME:SIZE, such as resnet20:32"),
    ("--networks=resnet9:32", "model 'resnet9' is unknown: choose one of"),
    ("stray", "argument 'stray' is not a flag"),
  ],
)
def test_other_networks_are_refused(argument, words):
  done = run("memory", argument)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith("error: ")
  assert words in done.stderr
