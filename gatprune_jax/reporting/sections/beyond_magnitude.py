"""What was found beyond magnitude: how much of each removed channel the kept ones explain."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatprune_jax.reporting.parts import Figure, Part, Table, Text
from gatprune_jax.reporting.record import Outcome, Run
from gatprune_jax.reporting.sections.network import shortened
from gatprune_jax.runs.drawing import INK, MUTED, SERIES, svg

_HEIGHT = 3.6  # inches
_NAMED = 12  # channels that are named at once


class _Channel(NamedTuple):
  name: str  # of the group, and the channel's index in it
  place: int  # by magnitude in its group, from 0
  width: int  # of its group
  kept: bool
  by_magnitude: bool  # whether it is among as many of its group's largest as were kept
  explained: float


def beyond_magnitude(run: Run, name: str) -> list[Part]:
  """Returns for each budget a sentence, a scatter, and the channels that magnitude would keep."""
  parts: list[Part] = []
  for place, (label, outcomes) in enumerate(run.outcomes_by_label().items()):
    channels = [channel for outcome in outcomes for channel in _channels(outcome, len(outcomes))]
    if any(not channel.kept for channel in channels):
      parts += _of_budget(label, channels, f"{name}-{place}")
  return parts


def _of_budget(label: str, channels: Sequence[_Channel], name: str) -> list[Part]:
  removed = [channel for channel in channels if not channel.kept]
  against = [channel for channel in removed if channel.by_magnitude]
  with_it = [channel for channel in removed if not channel.by_magnitude]
  small = [channel for channel in channels if channel.kept and not channel.by_magnitude]
  kinds = {
    "these": against,
    "the other removed ones": with_it,
    "those that are kept although magnitude would remove them": small,
  }
  shares = [f"{_mean(some)} of the energy of {kind}" for kind, some in kinds.items() if some]
  *first, last = shares
  listed = f"{', '.join(first)} and {last}" if first else last
  start = f"{label}: of" if label else "Of"
  told = (
    f"{start} {len(removed)} removed channels, {len(against)} would have been kept by their "
    "magnitude, if each group kept as many as it does. The other kept channels explain on average "
    f"{listed}."
  )
  drawn = svg(
    lambda figure: _paint(figure, channels), name,
    "Share of each channel that the other kept channels explain, against its rank by magnitude",
    told, _HEIGHT,
  )  # fmt: skip
  caption = (
    "Each mark is a channel. To the left are the largest of their group by L1 norm. Height is the "
    "share of the channel's energy that ridge regression on the kept channels explains, from the "
    "dense network's Gram matrices: what is high up is redundant, whatever its size. Diamonds are "
    "removed although magnitude would keep them."
  )
  against.sort(key=lambda channel: -channel.explained)
  body = [
    [c.name, f"{c.place + 1} of {c.width}", f"{c.explained:.3f}"] for c in against
  ]  # fmt: skip
  table = Table(
    "Removed channels that magnitude would have kept.",
    ("channel", "rank by magnitude", "explained"), body, shown=_NAMED,
  )  # fmt: skip
  return [Text(told), Figure(drawn, caption), *([table] if body else [])]


def _channels(outcome: Outcome, num_outcomes: int) -> Iterator[_Channel]:
  """Yields the channels of which it is known how far they are explained."""
  seed = f"seed {outcome.seed}, " if num_outcomes > 1 else ""
  for group in outcome.explanation.groups:
    for index, share in enumerate(group.explained):
      if share is not None:
        yield _Channel(
          f"{seed}{shortened(group.name)}[{index}]", group.place[index], group.width,
          group.kept[index], group.kept_by_magnitude(index), share,
        )  # fmt: skip


def _mean(channels: Sequence[_Channel]) -> str:
  return f"{100 * np.mean([channel.explained for channel in channels]):.0f} %"


def _paint(figure: Any, channels: Sequence[_Channel]) -> None:
  axis = figure.subplots()
  kinds = (
    ("kept", lambda c: c.kept, {"marker": "o", "color": MUTED, "markerfacecolor": "none",
                                "markersize": 4}),
    ("removed", lambda c: not c.kept and not c.by_magnitude,
     {"marker": "x", "color": INK, "markersize": 4.5}),
    ("removed, though large", lambda c: not c.kept and c.by_magnitude,
     {"marker": "D", "color": SERIES[0], "markersize": 5}),
  )  # fmt: skip
  for label, belongs, style in kinds:
    some = [channel for channel in channels if belongs(channel)]
    x = [(channel.place + 0.5) / channel.width for channel in some]
    axis.plot(x, [c.explained for c in some], linestyle="none", label=label, **style)
  axis.set(
    xlim=(0, 1), ylim=(-0.03, 1.03), xlabel="rank by magnitude in its group, largest at 0",
    ylabel="share explained, R²",
  )  # fmt: skip
  figure.legend(loc="outside upper center", ncols=3)
