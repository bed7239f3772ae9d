"""Which masks of a network are allowed: within every budget, and no group below its floor."""

from collections.abc import Mapping
import dataclasses
import math

import numpy as np

from gatprune_jax.channels.costs.budgets import Budgets, make_budgets
from gatprune_jax.channels.costs.floors import keep_floors, smallest_mask
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
  """What limits the masks of one network. Counts exactly, outside of jit.

  Attributes:
    graph: the network's channels.
    budgets: the limits of its resources, K of them; they also go under jit.
    floors: fewest channels of each group, int64 `[groups]`; within the budgets.
  """

  graph: ChannelGraph
  budgets: Budgets
  floors: np.ndarray

  @property
  def names(self) -> tuple[str, ...]:
    """The constrained resources."""
    return self.budgets.names

  @property
  def limits(self) -> np.ndarray:
    """Largest share of the dense network's cost, float64 `[K]`, in (0, 1]."""
    return self.budgets.limits

  def ratios(self, mask: np.ndarray) -> np.ndarray:
    """c_k(mask) / c_k(dense) of a concrete mask `[N]`, float64 `[K]`."""
    return self.budgets.ratios(np.asarray(mask))

  def costs(self, mask: np.ndarray) -> dict[str, float]:
    """{resource: share of the dense network's cost} of a concrete mask `[N]`."""
    return dict(zip(self.names, self.ratios(mask).tolist(), strict=True))

  def feasible(self, mask: np.ndarray) -> bool:
    """Whether a concrete mask `[N]` is within every budget; floors are not looked at."""
    return bool((self.ratios(mask) <= self.limits).all())

  def smallest_mask(self) -> np.ndarray:
    """A mask with every group at its floor, bool `[N]`."""
    return smallest_mask(self.graph, self.floors)

  def reachable(self) -> dict[str, float]:
    """{resource: smallest share of the dense network's cost that the floors leave}."""
    return self.costs(self.smallest_mask())

  def top_up(self, mask: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Adds removed channels in order of priority, each one that still fits every budget.

    Costs grow with every channel, so the result is maximal: no further channel fits.

    Args:
      mask: a feasible mask, bool `[N]`.
      priority: `[N]`, higher first; ties by id.
    """
    mask = np.array(mask, bool)
    order = np.argsort(-np.asarray(priority), kind="stable")
    # What does not fit now never will, so that the first of those that fit is always the next one.
    while len(order := order[self._fits_beside(mask)[order]]):
      mask[order[0]] = True
    return mask

  def _fits_beside(self, mask: np.ndarray) -> np.ndarray:
    """Whether each channel is removed, and the mask feasible with it in addition, bool `[N]`."""
    costs = np.stack([resource.with_one_more(mask) for resource in self.budgets.resources])
    return ~mask & (costs / self.budgets.dense[:, None] <= self.limits[:, None]).all(0)


def make_constraints(
  graph: ChannelGraph,
  limits: Mapping[str, float],
  keep_floor: float = 0.05,
  allow_empty: bool = False,
) -> Constraints:
  """Checks budgets and floors against what the network can reach.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost}.
    keep_floor: smallest share of each group that is kept, in [0, 1]; at least one channel always
      is.
    allow_empty: whether groups with a bypass have a floor of 0 channels instead.

  Raises:
    InputError: a floor outside [0, 1], an unknown resource, one of which the dense network has
      nothing, a share outside (0, 1], no budget at all, or one that even the smallest network
      exceeds (the message says what is reachable).
  """
  floors = keep_floors(graph, keep_floor, allow_empty)
  constraints = Constraints(graph, make_budgets(graph, limits), floors)
  for limit, (name, least) in zip(constraints.limits, constraints.reachable().items(), strict=True):
    if limit < least:
      shown = math.ceil(least * 1e4) / 1e4
      raise InputError(
        f"budget {limit} for {name} cannot be reached: with at least {int(floors.min())} to "
        f"{int(floors.max())} channels kept in each of the {len(floors)} groups, the smallest "
        f"reachable share is {shown}"
      )
  return constraints
