"""Tests of metrics: which lines remain when a loop goes on, and what its progress line shows."""

import json

import numpy as np

from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.runs.metrics import MetricsFile


def test_a_loop_that_goes_on_drops_its_later_lines_and_damaged_ones(tmp_path):
  path = tmp_path / "metrics.jsonl"
  file = MetricsFile(str(path))
  for phase, step in (("dense", 1), ("search", 1), ("search", 2)):
    file.write(phase, step, {"loss": np.float32(step)})
  whole = path.read_bytes().splitlines(keepends=True)
  damaged = [bytes(4) + b"\n", b'{"phase": "den\n', b"5\n", b'{"step": 1}\n', b"\xff\n"]
  cut_short = json.dumps({"phase": "dense", "step": 2}).encode()
  path.write_bytes(b"".join([*damaged, *whole, cut_short]))
  file.rewind("search", 1)
  assert path.read_bytes() == b"".join(whole[:2])


def test_what_comes_after_the_steps_has_a_line_of_its_own(capsys):
  with ProgressLogger().loop("search", "update", 2) as loop:
    for step in (1, 2):
      loop.record(step, {"loss": np.float32(0.5)})
    loop.count("exchange", 4, 10)
    loop.count("exchange", 9, 10)
  lines = [line for line in capsys.readouterr().err.splitlines() if line]
  first = [line for line in lines if line.startswith("update")]
  assert lines[: len(first)] == first
  assert first[-1].startswith("update 2/2 ")
  assert first[-1].endswith("loss=0.500")
  assert lines[-1].startswith("exchange 9/10 ")
