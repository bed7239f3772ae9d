"""How the rows of finished runs become the markdown of a table.

Each function is given the directory that has the files which a table keeps; `PRINTED` is one of
them where the last command's output is the table.
"""

import json
import os
from typing import Any

import numpy as np

from gatprune_jax.runs.report import CompareRow, comparison_over_seeds, markdown_table

PRINTED = "printed.md"  # what the last command of a table printed
GRADIENT_SEEDS = (0, 1, 2)
ROUNDS = (1, 3)  # numbers of rounds that are compared
ROUNDS_SEEDS = (0, 1, 2)


def _read(*path: str) -> Any:
  with open(os.path.join(*path), encoding="utf-8") as file:
    return json.load(file)


def of_comparison(place: str) -> str:
  """Returns the tables of a finished `experiments.compare`."""
  rows = [CompareRow(**row) for row in _read(place, "compare.json")]
  return comparison_over_seeds(rows, finetuned=any(row.epochs for row in rows))


def as_printed(place: str) -> str:
  """Returns what the command printed."""
  with open(os.path.join(place, PRINTED), encoding="utf-8") as file:
    return file.read().strip()


def of_gradient(place: str) -> str:
  """Returns one table of the cosines of several runs of `experiments.gradient`."""
  results = [_read(place, f"seed{seed}", "result.json")["cosines"] for seed in GRADIENT_SEEDS]
  shown = lambda values: f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
  body = [[name, *(shown(cosines[name]) for cosines in results)] for name in results[0]]
  return markdown_table(("estimate", *(f"seed {seed}" for seed in GRADIENT_SEEDS)), body)


def of_rounds(place: str) -> str:
  """Returns the table of agents that pruned at once and in rounds, in equal numbers of epochs."""
  body = []
  for rounds in ROUNDS:
    runs = [_read(place, f"rounds{rounds}-seed{seed}", "result.json") for seed in ROUNDS_SEEDS]
    agents = [run["pruned"] for run in runs]
    budget = runs[0]["budgets"]["macs"]
    share = lambda name, runs=agents: _in_percent([run[name] for run in runs])
    costs = [agent["macs_ratio"] / budget for agent in agents]
    body.append([
      rounds, f"{min(costs):.4f} to {max(costs):.4f}", share("test_accuracy_before_finetune"),
      share("test_accuracy"), _in_percent([run["dense"]["test_accuracy"] for run in runs]),
    ])  # fmt: skip
  headers = (
    "rounds", "MACs of the budget", "test before the last fine-tuning", "test after",
    "dense network",
  )  # fmt: skip
  return markdown_table(headers, body)


def _in_percent(shares: list[float]) -> str:
  return f"{100 * np.mean(shares):.1f} ± {100 * np.std(shares, ddof=1):.1f} %"


def of_files(place: str) -> str:
  """Returns the table of the benchmarks of exported files."""
  shown = lambda seconds: f"{1e3 * seconds:.3g} ms"
  body = [
    [row["name"], shown(row["seconds"]), shown(row["reference_seconds"]), f"{row['ratio']:.2f}",
     row["note"]]
    for row in _read(place, "rows.json")["rows"]
  ]  # fmt: skip
  headers = ("file", "its time", "dense file", "ratio", "MACs, size, largest relative difference")
  return markdown_table(headers, body)
