"""Budgets, the constraints c_k(mask) / c_k(dense) <= d_k, as arrays that go under jit."""

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

_ROUNDING = 1e-6  # of violations in float32


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("limits", "resources", "dense"),
  meta_fields=("names",),
)
@dataclasses.dataclass(frozen=True)
class Budgets:
  """Limits of a network's resources. A pytree, so that it can be an argument under jit.

  Attributes:
    names: the constrained resources, K of them.
    limits: largest share of the dense network's cost, float64 `[K]`, in (0, 1].
    resources: what is limited.
    dense: the dense network's costs, float64 `[K]`.
  """

  names: tuple[str, ...]
  limits: np.ndarray
  resources: tuple[Resource, ...]
  dense: np.ndarray

  def ratios(self, mask: Any) -> Any:
    """c_k(mask) / c_k(dense), `[K]`; float32 where JAX traces the mask, else exact float64."""
    xp = jnp if isinstance(mask, jax.core.Tracer) else np
    return xp.stack([r.cost(mask) / d for r, d in zip(self.resources, self.dense, strict=True)])

  def violations(self, mask: Any) -> Any:
    """v_k = (c_k(mask) / c_k(dense) - d_k) / d_k, `[K]`; feasible where all are <= 0."""
    return (self.ratios(mask) - self.limits) / self.limits

  def within_tolerance(self, violations: jax.Array) -> jax.Array:
    """Whether violations `[..., K]` in float32 are none but by rounding, `[...]`.

    A mask that is handed back must be `Constraints.feasible`.
    """
    return (violations <= _ROUNDING).all(-1)


def make_budgets(graph: ChannelGraph, limits: Mapping[str, float]) -> Budgets:
  """The budgets of a network; whether any mask is within them is not looked at.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost}.

  Raises:
    InputError: an unknown resource, one of which the dense network has nothing, a share outside
      (0, 1], or no budget at all.
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
  return Budgets(names, np.array([float(limits[n]) for n in names]), resources, dense)
