"""Budgets: the constraints c_k(mask) / c_k(dense) <= d_k, as arrays that can be used under jit."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.limits import read_limit
from gatprune_jax.channels.costs.resources import MEASURED, RESOURCES, Resource
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
  graph: ChannelGraph,
  limits: Mapping[str, float | str],
  deployment: Deployment | None = None,
  first: Mapping[str, float] | None = None,
) -> Budgets:
  """Builds the budgets of a network without checking whether any mask is within the budgets.

  Args:
    graph: the network's channels.
    limits: {resource: largest share of the dense network's cost, or a cost with its unit}; see
      `read_limit`.
    deployment: how the pruned network is going to be run; None for the defaults.
    first: {resource: cost} of the first network, where this one was cut from it; shares are then
      those of the first network's costs, and counted costs must not depend on the deployment.

  Raises:
    InputError: a resource is unknown, the dense network has a cost of 0 in a resource, a limit is
      one that `read_limit` refuses, no budget is given at all, the network was cut and a counted
      cost depends on the deployment or is not known of the first network, or a budget is for
      latency and the deployment has no table of this network.
  """
  if not limits:
    raise InputError(f"no budget given: constrain one or more of {', '.join(sorted(RESOURCES))}")
  for name in limits:
    if name not in RESOURCES:
      raise InputError(
        f"budget for {name!r}: unknown resource, choose from {', '.join(sorted(RESOURCES))}"
      )
  names = tuple(sorted(limits))
  for name in limits:
    if first is not None and name not in first:
      raise InputError(
        f"budget for {name}: this network was cut from another one, whose cost is not known, so "
        "prune that one, or leave this budget out"
      )
  resources = tuple(RESOURCES[name](graph, deployment or Deployment()) for name in names)
  everything = np.ones(graph.num_channels)
  dense = np.array([resource.cost(everything) for resource in resources])
  shares = []
  for index, (name, resource) in enumerate(zip(names, resources, strict=True)):
    if (cost := dense[index]) == 0:
      raise InputError(f"budget for {name}: the dense network has 0 {name}, so leave it out")
    if first is not None:
      if name not in MEASURED and cost != RESOURCES[name](graph, Deployment()).cost(everything):
        raise InputError(
          f"budget for {name} at {deployment}: of the network that this one was cut from the cost "
          "is known for one example only, so leave the deployment as it is by default"
        )
      dense[index] = first[name]
    shares.append(read_limit(name, limits[name], resource.unit, dense[index]))
  return Budgets(names, np.array(shares), resources, dense)
