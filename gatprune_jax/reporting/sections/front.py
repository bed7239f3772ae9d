"""Accuracy against cost, with every method."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gatprune_jax.reporting.parts import Figure, Part
from gatprune_jax.reporting.record import COMPARE, Run
from gatprune_jax.runs.drawing import INK, MUTED, SERIES, series_style, svg
from gatprune_jax.runs.report import CompareRow

_HEIGHT = 3.4  # inches
_CLASSICAL = "classical pruners"


def front(run: Run, name: str) -> list[Part]:
  """Returns figures of the score against the share of MACs, before and after fine-tuning."""
  if run.experiment == COMPARE:
    fields = {"Before fine-tuning, select part": "accuracy_before_finetune"}
    if run.finetuned:
      fields["After fine-tuning, test part"] = "test_accuracy"
    caption = (
      "Means over seeds, with bars of one standard error. Thin grey lines are classical pruners."
    )
    draw = lambda field: lambda axis: _lines(axis, run, field)
    title = "Accuracy against the share of MACs"
  else:
    fields = {
      "Before fine-tuning, test part": "test_before",
      "After fine-tuning, test part": "test_after",
    }
    caption = (
      "Every method keeps to the same budgets, so that its network stands beside the others; the "
      "dense network is at the right."
    )
    draw = lambda field: lambda axis: _points(axis, run, field)
    title = f"{run.metric.capitalize()} against the share of MACs"
  told = "The table of all methods has the numbers."
  return [
    Figure(
      svg(_with_axes(draw(field), when, run), f"{name}-{place}", f"{title}: {when}", told, _HEIGHT),
      caption if place == 0 else "",
    )
    for place, (when, field) in enumerate(fields.items())
  ]


def by_method(run: Run, name: str) -> list[Part]:
  """Returns a figure with one line for each method: its score before and after fine-tuning."""
  if run.experiment == COMPARE:
    return []
  scale = 100 if run.metric == "accuracy" else 1
  rows = sorted(run.methods[1:], key=lambda row: row.test_before)
  before, after = (scale * np.array([getattr(r, f) for r in rows])
                   for f in ("test_before", "test_after"))  # fmt: skip
  places = np.arange(len(rows))

  def paint(figure: Any) -> None:
    axis = figure.subplots()
    axis.hlines(places, before, after, color=MUTED, linewidth=1)
    axis.plot(before, places, "o", color=SERIES[1], markerfacecolor="none", label="before")
    axis.plot(after, places, "D", color=SERIES[0], label="after fine-tuning")
    axis.set_yticks(places, [row.method for row in rows])
    axis.grid(False, axis="y")
    axis.set_xlabel(_axis_label(run))
    figure.legend(loc="outside upper right", ncols=2)

  told = "; ".join(f"{r.method}: {b:.4g}, then {a:.4g}"
                   for r, b, a in zip(rows, before, after, strict=True))  # fmt: skip
  title = "Test score of every method before and after fine-tuning"
  drawn = svg(paint, f"{name}-methods", title, f"{told}.", 0.9 + 0.24 * len(rows))
  caption = "Test part: circles before any gradient step, diamonds after fine-tuning."
  return [Figure(drawn, caption)]


def _with_axes(draw: Callable[[Any], None], when: str, run: Run) -> Callable[[Any], None]:
  def paint(figure: Any) -> None:
    axis = figure.subplots()
    draw(axis)
    axis.set(xlabel="share of the dense network's MACs", ylabel=_axis_label(run))
    figure.legend(loc="outside upper center", ncols=3, title=when)

  return paint


def _axis_label(run: Run) -> str:
  return "accuracy, %" if run.metric == "accuracy" else run.metric


def _points(axis: Any, run: Run, field: str) -> None:
  scale = 100 if run.metric == "accuracy" else 1
  whole, *classical, agent = run.methods
  score = lambda rows: [scale * getattr(row, field) for row in rows]
  shares = [row.macs_ratio for row in classical]
  axis.plot(
    shares, score(classical), "o", color=MUTED, markerfacecolor="none", label=_CLASSICAL
  )  # fmt: skip
  axis.plot([whole.macs_ratio], score([whole]), "s", color=INK, label=whole.method)
  axis.plot([agent.macs_ratio], score([agent]), "D", color=SERIES[0], label=agent.method)
  axis.set_xlim(0, 1.05)


def _lines(axis: Any, run: Run, field: str) -> None:
  named = [*run.config["compare"]["variants"], *run.config["compare"]["searches"]]
  draw_fronts(axis, run.compared, named, field)


def draw_fronts(axis: Any, rows: Sequence[CompareRow], named: Sequence[str], field: str) -> None:
  """Draws each method's score against its cost, with bars of one standard error over seeds.

  Args:
    axis: matplotlib's axes.
    rows: the rows of a comparison.
    named: methods that get a colour and a name each; the others are classical pruners.
    field: the field of a row that is the score, a share in [0, 1], shown in percent.
  """
  budgets = sorted({row.budget for row in rows})
  label = _CLASSICAL
  for method in dict.fromkeys([*named, *(row.method for row in rows)]):
    x, y, error = _over_budgets(rows, method, budgets, field)
    if method in named:
      axis.errorbar(x, y, error, label=method, capsize=3, **series_style(named.index(method)))
    else:
      axis.plot(x, y, color=MUTED, linewidth=0.7, marker=".", markersize=3, label=label, zorder=1)
      label = None  # the legend has one entry for all classical pruners


def _over_budgets(
  compared: Sequence[CompareRow], method: str, budgets: Sequence[float], field: str
) -> tuple[list[float], list[float], list[float]]:
  """Returns mean costs, mean scores and standard errors of a method at the budgets it has."""
  x, y, error = [], [], []
  for budget in budgets:
    rows = [row for row in compared if (row.method, row.budget) == (method, budget)]
    if rows:
      values = 100 * np.array([getattr(row, field) for row in rows])
      x.append(np.mean([row.macs_ratio for row in rows]))
      y.append(values.mean())
      error.append(values.std(ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else 0.0)
  return x, y, error
