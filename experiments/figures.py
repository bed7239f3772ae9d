"""Draws the figures of the README again: `python -m experiments.figures`.

Both are made from the rows that are stored for a table of RESULTS.md: `method.svg` shows the way
from a network to a smaller one, with the widths that the agent left; `front.svg` shows the test
accuracy of all methods against the share of the MACs. Each is a file of its own that is readable on
light and on dark pages, whose colours it takes from the reader's browser.
"""

from collections.abc import Sequence
import itertools
import json
import os
import sys
from typing import Any

from absl import app, flags, logging
import numpy as np

from gatprune_jax import InputError
from gatprune_jax.reporting.sections.front import draw_fronts
from gatprune_jax.reporting.standalone import standalone
from gatprune_jax.runs.drawing import INK, LINE, MUTED, SERIES, svg
from gatprune_jax.runs.report import CompareRow
from gatprune_jax.runtime.whole_files import whole_file

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
_TABLE = flags.DEFINE_string(
  "table", "cifar16_before", "Name of the table whose rows are drawn, a directory of results."
)
_DIRECTORY = flags.DEFINE_string("directory", _RESULTS, "Directory of the files.")

_AGENT = "agent"
_SEARCHES = {"agent": "agent", "evolve_bits": "evolution of the bits"}  # with their names to show
_BUDGET, _SEED = 0.25, 0  # of the network that `method.svg` shows
# Of a ResNet-8 with widths 16, 32 and 64: each stage has the channels of its stream and those
# within its block.
_WIDTHS = (16, 16, 32, 32, 64, 64)
_CHANNELS_A_DOT = 4


def main(argv: list[str]) -> None:
  """Writes both figures."""
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  try:
    if len(argv) > 1:
      raise InputError(f"argument {argv[1]!r} is not a flag: use --table=NAME or --out=DIR")
    for path in draw(_TABLE.value, _DIRECTORY.value):
      print(path)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def draw(table: str, out: str) -> list[str]:
  """Writes both figures from the rows of a table, and returns their paths.

  Args:
    table: name of the table.
    out: directory of the files.

  Raises:
    InputError: if no rows are stored for the table, or they have no agent where it is drawn.
  """
  path = os.path.join(_RESULTS, table, "compare.json")
  if not os.path.exists(path):
    raise InputError(f"table {table!r} has no rows in {path}: name one that has")
  with open(path, encoding="utf-8") as file:
    rows = [CompareRow(**row) for row in json.load(file)]
  chosen = [r for r in rows if (r.method, r.budget, r.seed) == (_AGENT, _BUDGET, _SEED)]
  if not chosen or len(chosen[0].keep_ratios) != len(_WIDTHS):
    raise InputError(
      f"table {table!r} has no row of {_AGENT} on a ResNet-8 at {_BUDGET} of the MACs and seed "
      f"{_SEED}: name one that has"
    )
  drawn = {"method": method_figure(chosen[0]), "front": front_figure(rows)}
  for name, figure in drawn.items():
    with whole_file(os.path.join(out, f"{name}.svg")) as file:
      file.write(standalone(figure).encode())
  return [os.path.join(out, f"{name}.svg") for name in drawn]


def front_figure(rows: Sequence[CompareRow]) -> str:
  """Returns the figure of the test accuracy against the share of the MACs."""
  rows = [row._replace(method=_SEARCHES.get(row.method, row.method)) for row in rows]
  named = [name for name in _SEARCHES.values() if any(row.method == name for row in rows)]
  seeds = len({row.seed for row in rows})

  def paint(figure: Any) -> None:
    axis = figure.subplots()
    draw_fronts(axis, rows, named, "test_accuracy")
    axis.set(xlabel="share of the dense network's MACs", ylabel="test accuracy, %")
    axis.set_xlim(0, None)
    figure.legend(loc="outside upper center", ncols=3)

  accuracies = {
    (name, budget): [100 * r.test_accuracy for r in rows if (r.method, r.budget) == (name, budget)]
    for name in named
    for budget in sorted({row.budget for row in rows})
  }
  told = "; ".join(
    f"{name} at {budget:g}: {np.mean(values):.1f} %"
    for (name, budget), values in accuracies.items()
  )
  title = f"Test accuracy against the share of the MACs, means over {seeds} seeds"
  return svg(paint, "front", title, f"{told}. Thin lines are classical pruners.", 3.2)


def method_figure(row: CompareRow) -> str:
  """Returns the figure of the way from a network to a smaller one, with one row's widths."""
  heights = [_heights(width // _CHANNELS_A_DOT) for width in _WIDTHS]
  rng = np.random.default_rng(0)  # the rows have the widths, and not which channels were kept
  kept = [
    rng.permutation(of)[: max(1, round(ratio * len(of)))]
    for ratio, of in zip(row.keep_ratios, heights, strict=True)
  ]
  widths = [round(ratio * width) for ratio, width in zip(row.keep_ratios, _WIDTHS, strict=True)]

  def paint(figure: Any) -> None:
    axes = figure.subplots(1, 4, gridspec_kw={"wspace": 0.08})
    titles = ("network", "channel graph", "one bit each", "smaller network")
    for axis, title in zip(axes, titles, strict=True):
      axis.set_title(title, fontsize=10)
      axis.axis("off")
      axis.set(xlim=(-0.6, len(_WIDTHS) - 0.4), ylim=(-9, 9))
    _bars(axes[0], _WIDTHS, MUTED)
    _edges(axes[1], heights)
    _dots(axes[1], heights, MUTED, MUTED)
    _edges(axes[2], kept)
    _dots(axes[2], heights, LINE, "none")
    _dots(axes[2], kept, SERIES[0], SERIES[0])
    _bars(axes[3], widths, SERIES[0])

  shown = ", ".join(f"{a} to {b}" for a, b in zip(_WIDTHS, widths, strict=True))
  title = "From a network to its channel graph, to one bit for each channel, to a smaller network"
  told = f"Widths of the six groups of a ResNet-8: {shown}; {row.macs_ratio:.3f} of the MACs."
  return svg(paint, "method", title, told, 1.9)


def _heights(num: int) -> np.ndarray:
  """Returns the heights of dots that stand one above the other, around 0."""
  return np.arange(num) - (num - 1) / 2


def _dots(axis: Any, heights: Sequence[np.ndarray], colour: str, fill: str) -> None:
  """Draws a column of dots for every group, at the given heights."""
  style = {"color": colour, "markerfacecolor": fill, "markersize": 3.4}
  for place, of in enumerate(heights):
    axis.plot(np.full(len(of), place), of, "o", **style)


def _edges(axis: Any, heights: Sequence[np.ndarray]) -> None:
  """Draws a line between each two dots of neighbouring groups."""
  # Not-a-number between two lines makes one path of all of them, which keeps the file small.
  x, y = [], []
  for place, (here, there) in enumerate(itertools.pairwise(heights)):
    for left, right in itertools.product(here, there):
      x += [place, place + 1, np.nan]
      y += [left, right, np.nan]
  axis.plot(x, y, "-", color=LINE, linewidth=0.35, zorder=0)


def _bars(axis: Any, widths: Sequence[int], colour: str) -> None:
  """Draws a bar for every group, as high as it has channels, with their number above it."""
  for place, width in enumerate(widths):
    high = width / _CHANNELS_A_DOT
    axis.bar(place, high, bottom=-high / 2, width=0.6, color=colour)
    axis.text(place, high / 2 + 0.3, str(width), ha="center", va="bottom", fontsize=8, color=INK)


if __name__ == "__main__":
  app.run(main)
