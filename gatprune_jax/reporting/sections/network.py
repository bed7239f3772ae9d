"""The network drawn as its graph of layers and groups of channels, with what was removed."""

from collections.abc import Sequence
from typing import Any

from gatprune_jax.reporting.explanation import Explanation
from gatprune_jax.reporting.parts import Figure, Part
from gatprune_jax.reporting.record import Run
from gatprune_jax.runs.drawing import INK, MUTED, PAPER, SERIES, svg

_ROW = 0.24  # inches of height for each layer
# The figure is 100 wide: lanes of groups, then names of layers, then bars of their MACs.
_LANES, _BARS = 34.0, (74.0, 100.0)  # where the lanes end at most, and where the bars are
_WIDEST_LANE = 7.0
_LONGEST = 32  # characters of a name


def network(run: Run, name: str) -> list[Part]:
  """Returns a drawing for each budget; in a comparison, of the first seed's network."""
  figures = []
  for place, (label, outcomes) in enumerate(run.outcomes_by_label().items()):
    first = outcomes[0]
    which = f"{label}, seed {first.seed}. " if label else ""
    caption = (
      f"{which}Layers from input to output. A lane is a group of channels: its filled part is "
      "kept, its hollow part removed. Triangles to the left write into a lane, triangles to the "
      "right read it. The bars are the layers' MACs, filled as far as they are left."
    )
    figures.append(Figure(_drawn(first.explanation, f"{name}-{place}"), caption))
  return figures


def shortened(path: str) -> str:
  """Returns a layer's path without the parts that the paths of most layers share."""
  name = path.removeprefix("params/").removesuffix("/value").removesuffix("/kernel")
  return name if len(name) <= _LONGEST else f"\N{HORIZONTAL ELLIPSIS}{name[1 - _LONGEST :]}"


def lanes_of(spans: Sequence[tuple[int, int]]) -> list[int]:
  """Returns a lane for each span such that spans in one lane do not meet, with few lanes.

  Spans take the first free lane in the order of their starts, which needs no more lanes than the
  most spans that share a place.

  Args:
    spans: first and last place of each, both included.
  """
  ends: list[int] = []
  lanes = [0] * len(spans)
  for index in sorted(range(len(spans)), key=lambda i: spans[i]):
    first, last = spans[index]
    free = [lane for lane, end in enumerate(ends) if end < first]
    lanes[index] = free[0] if free else len(ends)
    if not free:
      ends.append(last)
    ends[lanes[index]] = last
  return lanes


def _drawn(explanation: Explanation, name: str) -> str:
  layers, groups = explanation.layers, explanation.groups
  uses = [
    [row for row, layer in enumerate(layers) if index in (*layer.reads, *layer.writes)]
    for index in range(len(groups))
  ]
  # A group without a layer, such as one that only a table of embeddings holds, has no lane.
  drawn = [index for index, rows in enumerate(uses) if rows]
  lanes = lanes_of([(min(uses[index]), max(uses[index])) for index in drawn])
  num_lanes = max(lanes, default=0) + 1
  step = min(_WIDEST_LANE, _LANES / num_lanes)
  left = {index: step * (num_lanes - 1 - lane) for index, lane in zip(drawn, lanes, strict=True)}
  names = step * num_lanes + 3

  def paint(figure: Any) -> None:
    axis = figure.subplots()
    axis.set(xlim=(0, 100), ylim=(len(layers) - 0.4, -0.9))
    axis.axis("off")
    for index in drawn:
      _draw_group(
        axis, groups[index].num_kept / groups[index].width, left[index], step, uses[index]
      )
    largest = max(layer.macs for layer in layers)
    for row, layer in enumerate(layers):
      for marker, ends in (("<", layer.writes), (">", layer.reads)):
        for index in ends:
          center = left[index] + 0.4 * step
          axis.plot([center, names - 1], [row, row], color=MUTED, linewidth=0.5, zorder=1)
          axis.plot([center], [row], marker, color=INK, markersize=5.5, markeredgecolor=PAPER,
                    markeredgewidth=0.6, zorder=4)  # fmt: skip
      axis.text(names, row, shortened(layer.name), va="center", fontsize=9)
      start, length = _BARS[0], (_BARS[1] - _BARS[0]) / largest
      axis.barh(row, layer.macs * length, 0.55, start, color="none", edgecolor=INK, linewidth=0.7)
      axis.barh(row, layer.kept_macs * length, 0.55, start, color=SERIES[0])
    for x, words in ((0, "groups"), (names, "layers"), (_BARS[0], "MACs")):
      axis.text(x, -0.8, words, va="center", fontsize=9, color=MUTED)

  told = "; ".join(
    f"{shortened(group.name)} keeps {group.num_kept} of {group.width} channels" for group in groups
  )
  title = f"The network's {len(layers)} layers and {len(groups)} groups of channels"
  return svg(paint, name, title, f"{told}.", 0.35 + _ROW * (len(layers) + 1))


def _draw_group(axis: Any, share: float, left: float, step: float, rows: Sequence[int]) -> None:
  """Draws a group's lane from its first layer to its last one, filled by the share it keeps."""
  top, height, width = min(rows) - 0.3, max(rows) - min(rows) + 0.6, 0.8 * step
  axis.bar(left, height, width, top, align="edge", color="none", edgecolor=INK, linewidth=0.7,
           zorder=3)  # fmt: skip
  axis.bar(left, height, width * share, top, align="edge", color=SERIES[0], zorder=2)
