"""Budgets: the constraints c_k(mask) / c_k(dense) <= d_k, as arrays that can be used under jit."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.resources import RESOURCES, Resource
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError

_ROUNDING = 1e-6  # rounding error that is tolerated in a float32 violation


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("limits", "resources", "dense"),
  meta_fields=("names",),
)
@dataclasses.dataclass(frozen=True)
class Budgets:
  """Limits on a network's resources.

  The class is a registered pytree, so that an instance can be an argument of a jitted function.

  Attributes:
    names: names of the K constrained resources.
    limits: largest allowed share d_k of the dense network's cost, float64 `[K]`, in (0, 1].
    resources: cost function of each constrained resource, K of them.
    dense: the costs c_k(dense) of which shares are taken, float64 `[K]`: the dense network's, or
      those of the first network where the dense one was cut from it.
  """

  names: tuple[str, ...]
  limits: np.ndarray
  resources: tuple[Resource, ...]
  dense: np.ndarray

  def ratios(self, mask: Any) -> Any:
    """c_k(mask) / c_k(dense), `[K]`; float32 if JAX is tracing the mask, else exact float64."""
    xp = jnp if isinstance(mask, jax.core.Tracer) else np
    return xp.stack([r.cost(mask) / d for r, d in zip(self.resources, self.dense, strict=True)])

  def violations(self, mask: Any) -> Any:
    """v_k = (c_k(mask) / c_k(dense) - d_k) / d_k, `[K]`; a mask is feasible if all are <= 0."""
    return (self.ratios(mask) - self.limits) / self.limits

  def within_tolerance(self, violations: jax.Array) -> jax.Array:
    """Returns whether float32 violations `[..., K]` are at most rounding errors, bool `[...]`.

    A mask that is returned to the user must also pass the exact test `Constraints.feasible`.
    """
    return (violations <= _ROUNDING).all(-1)


def make_budgets(
  graph: ChannelGraph, limits: Mapping[str, float], first: Mapping[str, float] | None = None
) -> Budgets:
  """Builds the budgets of a network without checking whether any mask is within the budgets.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost}.
    first: {resource: cost} of the first network, where this one was cut from it; shares are then
      those of the first network's costs.

  Raises:
    InputError: a resource is unknown, the dense network has a cost of 0 in a resource, a share is
      outside (0, 1], or no budget is given at all.
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
  resources = tuple(RESOURCES[name](graph) for name in names)
  dense = np.array([resource.cost(np.ones(graph.num_channels)) for resource in resources])
  for name, cost in zip(names, dense, strict=True):
    if cost == 0:
      raise InputError(f"budget for {name}: the dense network has 0 {name}, so leave it out")
  if first is not None:
    dense = np.array([first[name] for name in names])
  return Budgets(names, np.array([float(limits[n]) for n in names]), resources, dense)
