"""Tests of the metrics file: which lines remain when a loop goes on from a checkpoint."""

import json

import numpy as np

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
