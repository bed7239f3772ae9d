"""Allocation of budgets: from saliency scores of channels to a mask that fits the budgets."""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple

import numpy as np

from gatprune_jax.channels import ChannelGraph, Constraints, group_starts, ranks
from gatprune_jax.errors import InputError

SCOPES = ("uniform", "global")


def channel_order(graph: ChannelGraph, scores: np.ndarray, scope: str) -> np.ndarray:
  """Returns the order in which channels are kept, int64 `[N]`, where 0 is the first channel kept.

  The scope "global" orders all channels by score. The scope "uniform" orders channels by their
  position in their group, (rank + 1/2) / width, so that every prefix of the order holds the same
  share of every group to within one channel.

  Args:
    graph: the network's channels.
    scores: `[N]`; channels with higher scores are kept first.
    scope: "uniform" or "global".

  Raises:
    InputError: the scope is unknown.
  """
  if scope not in SCOPES:
    raise InputError(f"scope {scope!r} is unknown: choose from {', '.join(SCOPES)}")
  by_score = ranks(scores)
  if scope == "global":
    return by_score
  widths = np.array([len(group.channels) for group in graph.groups])
  position = (_rank_in_group(graph, by_score) + 0.5) / widths[graph.group_of]
  return np.argsort(np.lexsort((by_score, position)))  # at equal positions, higher score first


def order_by_ratios(graph: ChannelGraph, order: np.ndarray, ratios: np.ndarray) -> np.ndarray:
  """Returns the order whose prefixes keep groups in proportion to their ratios, int64 `[N]`.

  Channels are ordered by (rank + 1/2) / (width * ratio) of their group. The prefix up to a value t
  therefore keeps the first `t * ratio` of each group's width.

  Args:
    graph: the network's channels.
    order: place of each channel, by which the channels of a group are ranked, 0 first, `[N]`.
    ratios: positive ratio of each group, `[groups]`; only the proportions of ratios matter.
  """
  widths = np.array([len(group.channels) for group in graph.groups])
  rank = _rank_in_group(graph, order)
  return ranks(-(rank + 0.5) / (widths * ratios)[graph.group_of])


def allocate(constraints: Constraints, order: np.ndarray) -> np.ndarray:
  """Returns a mask that keeps the longest prefix of an order that fits the budgets.

  The prefix is found by bisection. Budget that remains after the prefix is spent on the next
  channels in the order that still fit, so that all methods end equally close to the budget.

  Args:
    constraints: the budgets and floors.
    order: place of each channel `[N]`, 0 first.

  Returns:
    A feasible mask, bool `[N]`, with every group at or above its floor.
  """
  graph = constraints.graph
  at_floor = _rank_in_group(graph, order) < constraints.floors[graph.group_of]
  mask = _largest_feasible(lambda size: at_floor | (order < size), len(order), constraints)
  return constraints.top_up(mask, -order)


class Classical(NamedTuple):
  """A classical pruner: a criterion in a scope, with the mask that fits the budgets."""

  name: str  # the criterion and the scope, separated by a space
  order: np.ndarray  # [N] place of each channel, 0 = kept first
  mask: np.ndarray  # [N] bool, feasible


def classical_pruners(
  constraints: Constraints, scores: Mapping[str, np.ndarray]
) -> list[Classical]:
  """Returns the pruners of every criterion in every scope, with masks that fit the budgets.

  Args:
    constraints: the budgets and floors.
    scores: scores of channels `[N]` by the name of the criterion.
  """
  pruners = []
  for name, values in scores.items():
    for scope in SCOPES:
      order = channel_order(constraints.graph, values, scope)
      pruners.append(Classical(f"{name} {scope}", order, allocate(constraints, order)))
  return pruners


def _rank_in_group(graph: ChannelGraph, order: np.ndarray) -> np.ndarray:
  """Returns each channel's rank in its group by an order, 0 for the first, int64 `[N]`.

  Searches call this for every mask that they propose, outside of compiled functions, where each
  operation of JAX would cost more to start than to compute.
  """
  group_of = graph.group_of
  # The inverse of a permutation is what sorts it.
  return np.argsort(np.lexsort((order, group_of))) - group_starts(graph)[group_of]


def _largest_feasible(
  keep: Callable[[int], np.ndarray], largest: int, constraints: Constraints
) -> np.ndarray:
  """Returns `keep(size)` for the largest feasible size in [0, largest]; `keep(0)` is feasible."""
  low, high = 0, largest
  for _ in range(math.ceil(math.log2(largest + 1))):
    middle = (low + high + 1) // 2
    if constraints.feasible(keep(middle)):
      low = middle
    else:
      high = middle - 1
  return keep(low)
