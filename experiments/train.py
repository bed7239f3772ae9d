"""Trains a dense network: `python -m experiments.train --workdir=DIR`.

Writes `checkpoints/dense`, `metrics.jsonl` and `result.json`. To prune the trained network, give
`experiments.prune --config.dense.checkpoint=DIR`. The test split is read once, at the end.
"""

import time

from experiments.common import dense
from experiments.common.app import start
from experiments.common.settings import Settings
from gatprune_jax import InputError
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger


def main(settings: Settings, run: Run) -> None:
  """Trains the network, or prints the result of a workdir that is finished."""
  dense.refuse_checkpoint(settings)
  if settings.dense.trained:
    raise InputError("dense.trained is True: there is nothing to train, set it to False")
  if runs.inspect(run.workdir, "train", run.config) is runs.Status.FINISHED:
    print(f"{run.workdir} is finished: {runs.read_result(run.workdir, 'train')}")
    return
  data = dense.load_data(settings)
  made = dense.make_network(settings, data)
  network = made.network
  with runs.claim(run.workdir, "train", run.config):
    since = time.monotonic()
    logger = RunLogger(run, settings.checkpoints, run.workdir)
    variables = dense.train_dense(settings, made, data, logger)
    result = {
      "network": made.name,
      "dataset": data.name,
      "seed": settings.seed,
      "select_accuracy": dense.accuracy(network, variables, data.select),
      "test_accuracy": dense.accuracy(network, variables, data.test),
      "seconds": time.monotonic() - since,
      "versions": runs.versions(),
    }
    runs.write_result(run.workdir, result)
  print(
    f"{made.name} on {data.name}: select accuracy {result['select_accuracy']:.4f}, "
    f"test accuracy {result['test_accuracy']:.4f}, in {run.workdir}"
  )


if __name__ == "__main__":
  start(main)
