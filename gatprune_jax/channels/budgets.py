"""Budgets, the constraints c_k(mask) / c_k(dense) <= d_k, and the floor under each group."""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.channels.resources import RESOURCES, Products
from gatprune_jax.errors import InputError

_ROUNDING = 1e-6  # of violations in float32


def keep_floors(graph: ChannelGraph, fraction: float, allow_empty: bool = False) -> np.ndarray:
  """The fewest channels each group may keep, max(1, ceil(fraction * width)), int64 `[groups]`.

  Args:
    graph: the network's channels.
    fraction: of each group's width, in [0, 1].
    allow_empty: whether groups with a bypass have a floor of 0 instead.

  Raises:
    InputError: where the fraction is not in [0, 1].
  """
  if not 0 <= fraction <= 1:
    raise InputError(f"the keep floor {fraction} is not a share of a group: choose one in [0, 1]")
  # Rounded, because 0.07 * 100 is 7.000000000000001.
  share = lambda group: math.ceil(round(fraction * len(group.channels), 9))
  return np.array([0 if allow_empty and g.has_bypass else max(1, share(g)) for g in graph.groups])


def ranks(priority: np.ndarray) -> np.ndarray:
  """Position of each channel among all, 0 for the highest priority, int64 `[N]`; ties by id."""
  return np.argsort(np.argsort(-np.asarray(priority, np.float64), kind="stable"))


def rank_in_group(priority: jax.Array, group_of: jax.Array, starts: jax.Array) -> jax.Array:
  """Position of each channel among its group, 0 for the highest priority, int32 `[N]`.

  Args:
    priority: `[N]`; ties go to the lower channel id.
    group_of: group of each channel `[N]`.
    starts: number of channels in all groups before each group `[groups]`.
  """
  order = jnp.lexsort((-priority, group_of))
  position = jnp.zeros(len(priority), jnp.int32).at[order].set(jnp.arange(len(priority)))
  return position - starts[group_of]


def raise_to_floors(
  mask: jax.Array, priority: jax.Array, group_of: jax.Array, starts: jax.Array, floors: jax.Array
) -> jax.Array:
  """Keeps the channels of highest priority in each group that fell below its floor.

  A group at or above its floor stays as it is.

  Args:
    mask: bool `[N]`.
    priority: `[N]`, finite.
    group_of: group of each channel `[N]`.
    starts: see `rank_in_group`.
    floors: fewest channels of each group `[groups]`.
  """
  kept_first = priority + jnp.where(mask, 1.0 + jnp.ptp(priority), 0.0)
  return mask | (rank_in_group(kept_first, group_of, starts) < floors[group_of])


def group_starts(graph: ChannelGraph) -> np.ndarray:
  """Number of channels in all groups before each group, int64 `[groups]`."""
  widths = [len(group.channels) for group in graph.groups]
  return np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("limits", "products", "dense"),
  meta_fields=("names",),
)
@dataclasses.dataclass(frozen=True)
class Budgets:
  """Constraints on a graph's resources. A pytree, so that it can be an argument under jit.

  Attributes:
    names: the constrained resources, K of them.
    limits: largest share of the dense network's cost, float64 `[K]`, in (0, 1].
    products: their exact sums.
    dense: the dense network's costs, float64 `[K]`.
  """

  names: tuple[str, ...]
  limits: np.ndarray
  products: tuple[Products, ...]
  dense: np.ndarray

  def ratios(self, mask: Any) -> Any:
    """c_k(mask) / c_k(dense), `[K]`; float32 where JAX traces the mask, else exact float64."""
    xp = jnp if isinstance(mask, jax.core.Tracer) else np
    return xp.stack([p(mask) / d for p, d in zip(self.products, self.dense, strict=True)])

  def violations(self, mask: Any) -> Any:
    """v_k = (c_k(mask) / c_k(dense) - d_k) / d_k, `[K]`; feasible where all are <= 0."""
    return (self.ratios(mask) - self.limits) / self.limits

  def met(self, violations: jax.Array) -> jax.Array:
    """Whether violations `[..., K]` in float32 are none but by rounding, `[...]`.

    A mask that is handed back must be `feasible`.
    """
    return (violations <= _ROUNDING).all(-1)

  def feasible(self, mask: Any) -> bool:
    """Whether a concrete mask is within every budget, counted exactly."""
    return bool((self.ratios(np.asarray(mask)) <= self.limits).all())

  def top_up(self, mask: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Adds removed channels in order of priority, each one that still fits every budget.

    Costs grow with every channel, so the result is maximal: no further channel fits.

    Args:
      mask: a feasible mask, bool `[N]`.
      priority: `[N]`, higher first.
    """
    mask = np.array(mask, bool)
    factors = [p.counts.astype(np.float64) @ mask + p.constant for p in self.products]
    for channel in np.argsort(-np.asarray(priority), kind="stable"):
      if mask[channel]:
        continue
      more = [f + p.counts[..., channel] for f, p in zip(factors, self.products, strict=True)]
      costs = np.array(
        [p.coefficient @ f.prod(-1) for f, p in zip(more, self.products, strict=True)]
      )
      if (costs / self.dense <= self.limits).all():
        mask[channel], factors = True, more
    return mask


def make_budgets(graph: ChannelGraph, limits: Mapping[str, float], floors: np.ndarray) -> Budgets:
  """Checks budgets against what the network can reach.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost}.
    floors: fewest channels of each group, from `keep_floors`.

  Raises:
    InputError: an unknown resource, a share outside (0, 1], no budget at all, or one that even
      the smallest network exceeds (the message says what is reachable).
  """
  if not limits:
    raise InputError(f"no budget given: constrain one or more of {', '.join(sorted(RESOURCES))}")
  for name, limit in limits.items():
    if name not in RESOURCES:
      raise InputError(
        f"budget for {name!r}: unknown resource, choose from {', '.join(sorted(RESOURCES))}"
      )
    if not isinstance(limit, (int, float, np.number)) or not 0 < limit <= 1:
      raise InputError(
        f"budget {limit} for {name} is not a share of the dense network: choose one above 0 and "
        "at most 1"
      )
  names = tuple(sorted(limits))
  products = tuple(RESOURCES[name](graph) for name in names)
  dense = np.array([p(np.ones(graph.num_channels)) for p in products])
  for name, cost in zip(names, dense, strict=True):
    if cost == 0:
      raise InputError(f"budget for {name}: the dense network has 0 {name}, so leave it out")
  budgets = Budgets(names, np.array([float(limits[n]) for n in names]), products, dense)
  reachable = budgets.ratios(smallest_mask(graph, floors))
  for name, limit, least in zip(names, budgets.limits, reachable, strict=True):
    if limit < least:
      shown = math.ceil(least * 1e4) / 1e4
      raise InputError(
        f"budget {limit} for {name} cannot be reached: with at least {int(floors.min())} to "
        f"{int(floors.max())} channels kept in each of the {len(floors)} groups, the smallest "
        f"reachable share is {shown}"
      )
  return budgets


def smallest_mask(graph: ChannelGraph, floors: np.ndarray) -> np.ndarray:
  """A mask with every group at its floor, bool `[N]`."""
  mask = np.zeros(graph.num_channels, bool)
  for group, floor in zip(graph.groups, floors, strict=True):
    mask[group.channels[:floor]] = True
  return mask
