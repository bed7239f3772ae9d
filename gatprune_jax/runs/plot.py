"""Figures of comparisons between pruning methods."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gatprune_jax.runs.drawing import save_png
from gatprune_jax.runs.report import CompareRow


def plot_comparison(
  rows: Sequence[CompareRow], named: Sequence[str], finetuned: bool, path: str
) -> None:
  """Draws mean accuracy over budgets, before and after fine-tuning, as a PNG file.

  Means are over seeds. The methods in colour have bars of one standard error. Every constrained
  resource other than the MACs has a panel of its own, with the cost of the methods' masks.

  Args:
    rows: the rows of `experiments.compare`.
    named: methods in colour; the other methods, the classical pruners, are grey.
    finetuned: whether the masks were fine-tuned; if not, only the accuracy before is drawn.
    path: path of the file.
  """
  panels = {"before fine-tuning, select split": lambda row: row.accuracy_before_finetune}
  if finetuned:
    panels["after fine-tuning, test split"] = lambda row: row.test_accuracy
  limited = [name for name in rows[0].costs if name != "macs"]
  panels |= {name: lambda row, name=name: row.costs[name] for name in limited}

  def paint(figure: Any) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, value_of) in zip(axes, panels.items(), strict=True):
      _draw_panel(axis, rows, named, value_of)
      ylabel = "share of the dense network's, %" if title in limited else "accuracy, %"
      axis.set(title=title, xlabel="MACs, share of the dense network's", ylabel=ylabel)
    axes[0].legend()

  save_png(paint, path, width=5.5 * len(panels), height=4.5)


def _draw_panel(
  axis: Any,
  rows: Sequence[CompareRow],
  named: Sequence[str],
  value_of: Callable[[CompareRow], float],
) -> None:
  """Draws one line for each method, of a value of the rows over the budgets that it has."""
  classical = "classical pruners"
  for method in dict.fromkeys(row.method for row in rows):
    budgets = sorted({row.budget for row in rows if row.method == method})
    values = [
      100 * np.array([value_of(r) for r in rows if (r.method, r.budget) == (method, b)])
      for b in budgets
    ]
    mean = [np.mean(v) for v in values]
    error = [np.std(v, ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0.0 for v in values]
    if method in named:
      axis.errorbar(budgets, mean, error, label=method, marker="o", capsize=3)
    else:
      axis.plot(budgets, mean, color="0.75", zorder=0, label=classical, marker=".")
      classical = None  # the legend has one entry for all classical pruners
