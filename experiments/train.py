"""Trains a dense network: `python -m experiments.train --workdir=DIR`.

Writes `checkpoints/dense`, which `experiments.prune --config.dense.checkpoint=DIR` starts from,
`metrics.jsonl` and `result.json`. The test split is read once, at the end.
"""

import os
import time
from typing import Any

from experiments import dense
from experiments.settings import Settings, run
from gatprune_jax import workdir as runs
from gatprune_jax.metrics import MetricsFile


def main(settings: Settings, config: dict[str, Any], workdir: str) -> None:
  """Trains, or says what a finished workdir holds."""
  data = dense.load_data(settings)
  network = dense.make_network(settings, data)
  status = runs.inspect(workdir, "train", config)
  if status is runs.Status.FINISHED:
    print(f"{workdir} is finished: {runs.read_result(workdir)}")
    return
  runs.claim(workdir, "train", config)

  start = time.monotonic()
  metrics = MetricsFile(os.path.join(workdir, "metrics.jsonl"))
  variables = dense.train_dense(settings, network, data, metrics, workdir)
  result = {
    "network": network.name,
    "dataset": data.name,
    "seed": settings.seed,
    "select_accuracy": dense.accuracy(network.eval_fn, variables, data.select),
    "test_accuracy": dense.accuracy(network.eval_fn, variables, data.test),
    "seconds": time.monotonic() - start,
    "versions": runs.versions(),
  }
  runs.write_result(workdir, result)
  print(
    f"{network.name} on {data.name}: select accuracy {result['select_accuracy']:.4f}, "
    f"test accuracy {result['test_accuracy']:.4f}, in {workdir}"
  )


if __name__ == "__main__":
  run(main)
