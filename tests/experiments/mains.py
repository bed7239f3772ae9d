"""The mains as processes of their own."""

import json
import os
import subprocess
import sys
import time

# Enough to run every part, on a network that learns nothing in so short a time.
SMALL = [
  "--config.model.widths=(4,6,8)", "--config.dense.recipe.epochs=3", "--config.finetune.epochs=2",
  "--config.search.updates=2", "--config.search.samples=4", "--config.search.policy.layers=1",
  "--config.search.shortlist=2", "--config.search.calibration_images=64",
  "--config.criteria=('random','l1','bn_scale')",
]  # fmt: skip


def command(main, *arguments):
  return [sys.executable, "-m", f"experiments.{main}", *arguments]


def run(main, *arguments):
  return subprocess.run(
    command(main, *arguments), capture_output=True, text=True, timeout=600, check=False
  )


def begin(main, *arguments):
  """Starts a main and does not wait for it."""
  return subprocess.Popen(
    command(main, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def metrics(workdir):
  """The whole lines of metrics.jsonl, without their times."""
  path = os.path.join(workdir, "metrics.jsonl")
  if not os.path.exists(path):
    return []
  with open(path) as file:
    lines = [json.loads(line) for line in file if line.endswith("\n")]
  for line in lines:
    del line["seconds"]
  return lines


def result(workdir):
  """result.json, without its times."""
  with open(os.path.join(workdir, "result.json")) as file:
    content = json.load(file)
  content.pop("seconds", None)
  content.get("search", {}).pop("seconds", None)
  return content


def wait_for(condition, process, seconds=300):
  """Waits until the condition holds; whether it does before the process ends."""
  end = time.monotonic() + seconds
  while not condition():
    if process.poll() is not None or time.monotonic() > end:
      return condition()
    time.sleep(0.01)
  return True


def contents(directory):
  """Every file below a directory, with its bytes."""
  found = {}
  for root, _, files in os.walk(directory):
    for name in files:
      path = os.path.join(root, name)
      with open(path, "rb") as file:
        found[path] = file.read()
  return found
