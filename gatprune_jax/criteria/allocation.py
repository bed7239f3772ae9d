"""From saliency scores to a mask at a budget: how many channels each group keeps."""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple

import numpy as np

from gatprune_jax.channels import ChannelGraph, Constraints, group_starts, rank_in_group, ranks
from gatprune_jax.errors import InputError

SCOPES = ("uniform", "global")


def channel_order(graph: ChannelGraph, scores: np.ndarray, scope: str) -> np.ndarray:
  """The order in which channels are kept: 0 for the first, int64 `[N]`.

  "global" orders by score. "uniform" orders by the position among the channel's own group,
  (rank + 1/2) / width, so that every prefix holds the same share of every group to within a
  channel.

  Args:
    graph: the network's channels.
    scores: `[N]`, higher is kept first.
    scope: "uniform" or "global".

  Raises:
    InputError: an unknown scope.
  """
  if scope not in SCOPES:
    raise InputError(f"scope {scope!r} is unknown: choose from {', '.join(SCOPES)}")
  by_score = ranks(scores)
  if scope == "global":
    return by_score
  group_of = graph.group_of
  widths = np.array([len(group.channels) for group in graph.groups])
  # Ranks, because the sort within groups is in float32 and scores may differ by less.
  rank = np.asarray(rank_in_group(-by_score.astype(np.float32), group_of, group_starts(graph)))
  position = (rank + 0.5) / widths[group_of]
  return np.argsort(np.lexsort((by_score, position)))  # equal positions: higher score first


def order_by_ratios(graph: ChannelGraph, order: np.ndarray, ratios: np.ndarray) -> np.ndarray:
  """The order whose prefixes keep groups in proportion to their ratios, int64 `[N]`.

  Channels are ordered by (rank + 1/2) / (width * ratio) of their group: the prefix up to t keeps
  the first `t * ratio` of each group's width.

  Args:
    graph: the network's channels.
    order: ranks the channels of a group, 0 first, `[N]`.
    ratios: positive; only their proportions matter, `[groups]`.
  """
  group_of = graph.group_of
  widths = np.array([len(group.channels) for group in graph.groups])
  rank = np.asarray(rank_in_group(-order.astype(np.float32), group_of, group_starts(graph)))
  return ranks(-(rank + 0.5) / (widths * ratios)[group_of])


def allocate(constraints: Constraints, order: np.ndarray) -> np.ndarray:
  """Keeps the longest prefix of an order that fits the budgets, found by bisection.

  What is left of the budget is spent on the next channels in the order that still fit, so that
  all methods end equally close to the budget.

  Args:
    constraints: the budgets and floors.
    order: the place of each channel `[N]`, 0 first.

  Returns:
    A feasible mask, bool `[N]`, with every group at or above its floor.
  """
  graph, floors = constraints.graph, constraints.floors
  group_of = graph.group_of
  rank = np.asarray(rank_in_group(-order.astype(np.float32), group_of, group_starts(graph)))
  at_floor = rank < floors[group_of]
  mask = _largest_feasible(lambda size: at_floor | (order < size), len(order), constraints)
  return constraints.top_up(mask, -order)


class Classical(NamedTuple):
  """A classical pruner brought to a budget."""

  name: str  # criterion and scope
  order: np.ndarray  # [N], 0 = kept first
  mask: np.ndarray  # bool [N]


def classical_pruners(
  constraints: Constraints, scores: Mapping[str, np.ndarray]
) -> list[Classical]:
  """Every criterion in every scope, brought to the budgets.

  Args:
    constraints: the budgets and floors.
    scores: {criterion: scores `[N]`}.
  """
  pruners = []
  for name, values in scores.items():
    for scope in SCOPES:
      order = channel_order(constraints.graph, values, scope)
      pruners.append(Classical(f"{name} {scope}", order, allocate(constraints, order)))
  return pruners


def _largest_feasible(
  keep: Callable[[int], np.ndarray], largest: int, constraints: Constraints
) -> np.ndarray:
  """Bisects the size in [0, largest] for the largest feasible `keep(size)`; keep(0) is feasible."""
  low, high = 0, largest
  for _ in range(math.ceil(math.log2(largest + 1))):
    middle = (low + high + 1) // 2
    if constraints.feasible(keep(middle)):
      low = middle
    else:
      high = middle - 1
  return keep(low)
