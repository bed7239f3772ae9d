"""Shows whether the agent's searches collapsed: `python -m experiments.collapse WORKDIR`.

WORKDIR is that of a finished `experiments.compare`. Each seed and budget of the agent is one row of
the table that is printed. A row says whether the mask is within the budget, and shows two signs of
a collapse: the keep ratios of the groups (a collapsed policy gives all groups the same ratio), and
the mean entropy of the policy's bits when the mean cost of the samples first met the budget (the
policy of a collapsed search has almost no entropy by then).
"""

import json
import os
import sys

from absl import app, logging
import numpy as np

from gatprune_jax import InputError
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import CompareRow, markdown_table

_AGENT = "agent"


def main(argv: list[str]) -> None:
  """Prints one row for each seed and budget of the agent, and a summary of all rows."""
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  try:
    if len(argv) != 2:
      raise InputError("name one workdir of a finished experiments.compare")
    runs.read_result(argv[1], "compare")  # raises if the run is not finished
    stored = runs.read_json(os.path.join(argv[1], "compare.json"))
    rows = [CompareRow(**row) for row in stored if row["method"] == _AGENT]
    if len(rows) < 2:
      raise InputError(f"{argv[1]} has {len(rows)} rows of {_AGENT!r}: compare two seeds or more")
    body = [describe_collapse(row, entropies(argv[1], row)) for row in rows]
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  headers = (
    "seed", "budget", "MACs ratio", "keep ratios", "their deviation", "entropy at the budget",
    "entropy at the end",
  )  # fmt: skip
  print(markdown_table(headers, body))
  feasible = sum(row.macs_ratio <= row.budget for row in rows)
  spread = [np.std(row.keep_ratios) for row in rows]
  print(
    f"\n{feasible} of {len(rows)} within the budget; deviation of keep ratios between groups "
    f"{np.mean(spread):.3f} ± {np.std(spread, ddof=1):.3f}, least {min(spread):.3f}"
  )


def entropies(workdir: str, row: CompareRow) -> tuple[float, float]:
  """Returns the policy's mean entropy when it first met the budget, and after the last update.

  Both are means over the policy's bits, in nats. The first is of the first update whose samples
  have a mean of MACs within the budget; it is NaN if there is no such update.

  Raises:
    InputError: if the metrics of the seed cannot be read, or have no update at this budget.
  """
  path = os.path.join(workdir, f"seed{row.seed}", "metrics.jsonl")
  try:
    with open(path) as file:
      lines = [json.loads(line) for line in file]
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from error
  except ValueError as error:
    raise InputError(f"{path} is damaged: {error}") from error
  updates = [line for line in lines if line["phase"] == f"{_AGENT} {row.budget}"]
  if not updates:
    raise InputError(f"{path} has no update of {_AGENT!r} at budget {row.budget}")
  # The costs are in the order of the resources' names. Rows without costs had the MACs alone.
  place = sorted(row.costs or ("macs",)).index("macs")
  within = (line["entropy"] for line in updates if line["cost"][place] <= row.budget)
  return next(within, float("nan")), updates[-1]["entropy"]


def describe_collapse(row: CompareRow, entropy: tuple[float, float]) -> list[str]:
  """Returns the cells of one row of the table."""
  ratios = " ".join(f"{ratio:.2f}" for ratio in row.keep_ratios)
  numbers = (np.std(row.keep_ratios), *entropy)
  return [str(row.seed), f"{row.budget:g}", f"{row.macs_ratio:.4f}", ratios,
          *(f"{number:.3f}" for number in numbers)]  # fmt: skip


if __name__ == "__main__":
  app.run(main)
