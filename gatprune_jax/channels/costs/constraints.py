"""Decides which masks are allowed: within every budget, and with no group below its floor."""

from collections.abc import Mapping
import dataclasses
import functools
import math

import numpy as np

from gatprune_jax.channels.costs.budgets import Budgets, make_budgets
from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.floors import keep_floors, smallest_mask
from gatprune_jax.channels.costs.limits import written
from gatprune_jax.channels.costs.widths import nearest_widths
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
  """The budgets and floors that limit the masks of one network.

  The methods count costs exactly in float64 and therefore run outside of jit.

  Attributes:
    graph: the network's channels.
    budgets: the limits of the network's K resources; the budgets alone can be used under jit.
    floors: fewest channels that each group keeps, int64 `[groups]`; the mask with every group at
      its floor is within the budgets.
    deployment: how the pruned network is going to be run.
  """

  graph: ChannelGraph
  budgets: Budgets
  floors: np.ndarray
  deployment: Deployment

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the K constrained resources."""
    return self.budgets.names

  @property
  def limits(self) -> np.ndarray:
    """Largest allowed share of the dense network's cost, float64 `[K]`, in (0, 1]."""
    return self.budgets.limits

  @functools.cached_property
  def block(self) -> int:
    """Number of channels that count together: 1, or the table's where latency is constrained."""
    table = self.deployment.latency_table
    return table.block if table is not None and "latency" in self.names else 1

  @functools.cached_property
  def widths(self) -> np.ndarray:
    """The allowed width of each group nearest to each number of channels, `[groups, W + 1]`.

    The agent's masks have these widths; see `nearest_widths`.
    """
    sizes = np.array([len(group.channels) for group in self.graph.groups])
    return nearest_widths(sizes, self.floors, self.block)

  def ratios(self, mask: np.ndarray) -> np.ndarray:
    """c_k(mask) / c_k(dense) of a concrete mask `[N]`, float64 `[K]`."""
    return self.budgets.ratios(np.asarray(mask))

  def costs(self, mask: np.ndarray) -> dict[str, float]:
    """Returns {resource: share of the dense network's cost} of a concrete mask `[N]`."""
    return dict(zip(self.names, self.ratios(mask).tolist(), strict=True))

  def statement(self, mask: np.ndarray) -> dict[str, dict[str, float | str]]:
    """Returns what a concrete mask `[N]` costs in every constrained resource.

    Returns:
      {resource: its unit, and in this unit the costs of the dense network, of the smallest one and
      of the mask, and the limit}.
    """
    smallest = self.smallest_mask()
    return {
      name: {
        "unit": resource.unit,
        "dense": float(dense),
        "smallest": float(resource.cost(smallest)),
        "limit": float(limit * dense),
        "pruned": float(resource.cost(np.asarray(mask))),
      }
      for name, resource, dense, limit in zip(
        self.names, self.budgets.resources, self.budgets.dense, self.limits, strict=True
      )
    }

  def feasible(self, mask: np.ndarray) -> bool:
    """Returns whether a concrete mask `[N]` is within every budget; floors are not checked."""
    return bool((self.ratios(mask) <= self.limits).all())

  def smallest_mask(self) -> np.ndarray:
    """Returns a mask with every group at its floor, bool `[N]`."""
    return smallest_mask(self.graph, self.floors)

  def reachable(self) -> dict[str, float]:
    """Returns {resource: smallest share of the dense network's cost that the floors permit}."""
    return self.costs(self.smallest_mask())

  def top_up(self, mask: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Adds removed channels in order of priority, wherever a channel still fits every budget.

    Adding a channel never lowers a cost, so the result is maximal: no further channel fits.

    Args:
      mask: a feasible mask, bool `[N]`.
      priority: `[N]`; channels of higher priority are added first, and of channels with equal
        priority the one with the lower id.

    Returns:
      The larger mask, bool `[N]`.
    """
    return self._add(mask, priority, self.limits)

  def add_free(self, mask: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Adds removed channels that cost nothing, in order of priority, until every other one costs.

    Hardware computes channels in blocks, so that the last ones of a block are free in latency, and
    channels that are in memory at another moment than the fullest one are free in activation_bytes.
    Several budgets have to be free at once. No channel is free in MACs where all groups keep some.

    Args:
      mask: bool `[N]`.
      priority: `[N]`, as in `top_up`.

    Returns:
      The larger mask, bool `[N]`, which costs what the given one costs.
    """
    return self._add(mask, priority, self.ratios(mask))

  def _add(self, mask: np.ndarray, priority: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Adds removed channels in order of priority, wherever no ratio `[K]` exceeds its limit."""
    mask = np.array(mask, bool)
    order = np.argsort(-np.asarray(priority), kind="stable")
    # A channel that does not fit now cannot fit later, because costs never fall. So each round
    # drops the channels that do not fit and adds the first of the remaining ones.
    while len(order := order[self._fits_beside(mask, limits)[order]]):
      mask[order[0]] = True
    return mask

  def _fits_beside(self, mask: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Returns whether each channel is removed and could be added within the limits, bool `[N]`."""
    costs = np.stack([resource.with_one_more(mask) for resource in self.budgets.resources])
    return ~mask & (costs / self.budgets.dense[:, None] <= limits[:, None]).all(0)


def make_constraints(
  graph: ChannelGraph,
  limits: Mapping[str, float | str],
  keep_floor: float = 0.05,
  allow_empty: bool = False,
  deployment: Deployment | None = None,
  first: Mapping[str, float] | None = None,
) -> Constraints:
  """Builds the constraints and checks that at least one mask satisfies the constraints.

  Costs never fall when a channel is added, so the mask with every group at its floor has the
  smallest cost in every resource at once. Limits that can each be reached can therefore be reached
  together.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost, or a cost with its unit}; see
      `read_limit`.
    keep_floor: smallest share of each group that is kept, in [0, 1]; at least one channel of each
      group is always kept.
    allow_empty: whether the floor of every group with a bypass is 0 channels instead.
    deployment: how the pruned network is going to be run; None for the defaults.
    first: {resource: cost} of the first network, where this one was cut from it; shares are then
      those of the first network's costs.

  Raises:
    InputError: the floor is outside [0, 1], a resource is unknown, the dense network has a cost of
      0 in a resource, a limit is one that `read_limit` refuses, no budget is given at all, or even
      the smallest network exceeds a budget (the message then gives the smallest reachable cost, and
      where it is smaller, the one with `allow_empty`).
  """
  floors = keep_floors(graph, keep_floor, allow_empty)
  deployment = deployment or Deployment()
  budgets = make_budgets(graph, limits, deployment, first)
  constraints = Constraints(graph, budgets, floors, deployment)
  for name, share, dense, resource in zip(
    budgets.names, budgets.limits, budgets.dense, budgets.resources, strict=True
  ):
    if share < (least := constraints.reachable()[name]):
      shown = lambda reached: math.ceil(reached * 1e4) / 1e4
      emptied = keep_floors(graph, keep_floor, allow_empty=True)
      lower = budgets.ratios(smallest_mask(graph, emptied))[budgets.names.index(name)]
      advice = f", or {shown(lower)} with search.allow_empty=True, where residual branches may go"
      raise InputError(
        f"budget {limits[name]} for {name} cannot be reached: with at least {int(floors.min())} to "
        f"{int(floors.max())} channels kept in each of the {len(floors)} groups, the smallest "
        f"network has {written(least * dense)} of the dense network's {written(dense)} "
        f"{resource.unit}, and the smallest reachable share is {shown(least)}"
        f"{advice if lower < least else ''}"
      )
  return constraints
