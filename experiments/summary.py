"""Summarises finished runs of `experiments.prune`: `python -m experiments.summary DIR DIR ...`.

Prints the mean and standard deviation of every method over the runs. For each run it also prints
the accuracy of the agent and of the best classical pruner on the select split, before and after
fine-tuning.
"""

import sys

from absl import app, logging

from gatprune_jax import InputError
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import Row, summary


def main(argv: list[str]) -> None:
  """Reads the `result.json` of each workdir, and prints the summary."""
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  try:
    results = [runs.read_result(path, "prune") for path in argv[1:]]
    if not results:
      raise InputError("no workdirs given: name those of finished experiments.prune runs")
    print(summary([[Row(**row) for row in result["methods"]] for result in results]))
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  print()
  for result in results:
    _, *classical, agent = (Row(**row) for row in result["methods"])
    before, after = (max(row[k] for row in classical) for k in (5, 6))
    print(
      f"seed {result['seed']}: before fine-tuning the agent has {100 * agent.select_before:.1f}, "
      f"the best classical pruner {100 * before:.1f}; after it {100 * agent.select_after:.1f} and "
      f"{100 * after:.1f}"
    )


if __name__ == "__main__":
  app.run(main)
