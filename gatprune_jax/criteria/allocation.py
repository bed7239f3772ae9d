"""From saliency scores to a mask at a budget: how many channels each group keeps."""

from collections.abc import Callable
import math

import numpy as np

from gatprune_jax.channels import Budgets, ChannelGraph, group_starts, rank_in_group
from gatprune_jax.errors import InputError

SCOPES = ("uniform", "global")


def allocate(
  graph: ChannelGraph, budgets: Budgets, floors: np.ndarray, scores: np.ndarray, scope: str
) -> np.ndarray:
  """The channels of highest score that fit the budgets.

  Both scopes put the channels in one order and keep its longest prefix that fits, found by
  bisection: "global" orders by score, "uniform" by the position among the channel's own group,
  (rank + 1/2) / width, so that every group keeps the same share to within a channel. What is left
  of the budget is spent on the next channels in that order that still fit, so that all methods
  end equally close to the budget.

  Args:
    graph: the network's channels.
    budgets: the constraints; the floors are within them.
    floors: fewest channels of each group `[groups]`.
    scores: `[N]`, higher is kept first.
    scope: "uniform" or "global".

  Returns:
    A feasible mask, bool `[N]`, with every group at or above its floor.

  Raises:
    InputError: an unknown scope.
  """
  if scope not in SCOPES:
    raise InputError(f"scope {scope!r} is unknown: choose from {', '.join(SCOPES)}")
  scores = np.asarray(scores, np.float64)
  group_of = graph.group_of
  widths = np.array([len(group.channels) for group in graph.groups])
  # Ranks, because the sort within groups is in float32 and scores may differ by less.
  by_score = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")  # 0 = highest
  rank = np.asarray(rank_in_group(-by_score.astype(np.float32), group_of, group_starts(graph)))
  position = by_score if scope == "global" else (rank + 0.5) / widths[group_of]
  order = np.argsort(np.lexsort((by_score, position)))  # equal positions: higher score first
  at_floor = rank < floors[group_of]
  mask = _largest_feasible(lambda size: at_floor | (order < size), len(scores), budgets)
  return budgets.top_up(mask, -order)


def _largest_feasible(
  keep: Callable[[int], np.ndarray], largest: int, budgets: Budgets
) -> np.ndarray:
  """Bisects the size in [0, largest] for the largest feasible `keep(size)`; keep(0) is feasible."""
  low, high = 0, largest
  for _ in range(math.ceil(math.log2(largest + 1))):
    middle = (low + high + 1) // 2
    if budgets.feasible(keep(middle)):
      low = middle
    else:
      high = middle - 1
  return keep(low)
