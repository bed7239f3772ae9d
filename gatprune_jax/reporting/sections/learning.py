"""Learning curves of the agent's searches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gatprune_jax.reporting.parts import Figure, Part
from gatprune_jax.reporting.record import Run, Search
from gatprune_jax.runs.drawing import MUTED, series_style, svg

_HEIGHT = 2.6  # inches


class _Curve(NamedTuple):
  label: str  # curves with equal labels have one entry in the legend
  values: Sequence[float | None]


def learning(run: Run, name: str) -> list[Part]:
  """Returns the curves of reward, costs, multipliers and entropy over the updates."""
  if not run.searches:
    return []
  each_limit = [
    (f"budget {limit:g}" if search.label else f"budget {limit:g} of {resource}", limit)
    for search in run.searches
    for resource, limit in search.limits.items()
  ]
  panels: tuple[tuple[str, str, Callable, list], ...] = (
    ("Reward", "mean reward of the samples, against the agent's own past", _of("reward"), []),
    ("Cost", "mean cost of the samples, share of the dense network's; straight lines are budgets",
     _of_each("cost"), each_limit),
    ("Multipliers", "Lagrange multiplier of each budget", _of_each("multiplier"), []),
    ("Entropy", "mean entropy of the policy's bits, in nats; 0.69 is a coin, 0 has decided",
     _of("entropy"), []),
  )  # fmt: skip
  figures = []
  for title, meaning, of, limits in panels:
    curves = [curve for search in run.searches for curve in of(search)]
    told = "; ".join(f"{c.label or title} ends at {_last(c.values)}" for c in curves)
    drawn = svg(
      _painted(curves, dict(limits), title.lower(), title != "Reward"), f"{name}-{title.lower()}",
      f"{title} over the updates of the search", f"{told}.", _HEIGHT,
    )  # fmt: skip
    figures.append(Figure(drawn, f"{title}: {meaning}."))
  return figures


def _label(search: Search, resource: str) -> str:
  """Returns what a curve is called: the resource in one search, else the search."""
  return search.label or resource


def _of(field: str) -> Callable[[Search], list[_Curve]]:
  return lambda search: [_Curve(search.label, [line[field] for line in search.updates])]


def _of_each(field: str) -> Callable[[Search], list[_Curve]]:
  return lambda search: [
    _Curve(_label(search, resource), [line[field][k] for line in search.updates])
    for k, resource in enumerate(search.limits)
  ]


def _last(values: Sequence[float | None]) -> str:
  return "no number" if values[-1] is None else f"{values[-1]:.3g}"


def _painted(
  curves: Sequence[_Curve], limits: dict[str, float], words: str, from_zero: bool
) -> Callable[[Any], None]:
  labels = list(dict.fromkeys(curve.label for curve in curves))

  def paint(figure: Any) -> None:
    axis = figure.subplots()
    seen = set()
    for label, values in curves:
      style = {**series_style(labels.index(label)), "marker": ""}
      shown = label if label and label not in seen else None
      seen.add(label)
      x = range(1, len(values) + 1)
      y = [float("nan") if value is None else value for value in values]
      axis.plot(x, y, linewidth=1.3, label=shown, **style)
    for label, limit in limits.items():
      axis.axhline(limit, color=MUTED, linewidth=0.8)
      # The words are a little below the line, so that neither it nor a cost above it crosses them.
      place = {"xy": (1, limit), "xycoords": ("axes fraction", "data")}
      apart = {"xytext": (0, -5), "textcoords": "offset points"}
      axis.annotate(label, **place, **apart, ha="right", va="top", fontsize=9, color=MUTED)
    axis.set(xlabel="update", ylabel=words)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if from_zero:
      axis.set_ylim(bottom=0)
    if any(labels):
      figure.legend(loc="outside upper center", ncols=min(3, len(labels)))

  return paint
