"""What a masked network costs: exact sums over layers and variables, differentiable in the mask."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, check_mask_shape


class Products(NamedTuple):
  """sum_l coefficient_l prod_k (counts_lk . mask + constant_lk).

  Each factor is the number of elements kept on one axis.
  """

  coefficient: np.ndarray  # [L] float64
  counts: np.ndarray  # [L, K, N] float32, how often channel n occurs on axis k of term l
  constant: np.ndarray  # [L, K] float64, elements that are never removed

  def __call__(self, mask: Any) -> Any:
    """Evaluates the sum for one mask `[N]`.

    A mask that JAX is tracing gives a float32 scalar; any other is counted exactly in float64.

    Raises:
      InputError: where the mask has another shape.
    """
    check_mask_shape(mask, self.counts.shape[-1])
    if isinstance(mask, jax.core.Tracer):
      kept = jnp.asarray(self.counts) @ mask.astype(jnp.float32)
      factors = kept + jnp.asarray(self.constant, jnp.float32)
      return jnp.asarray(self.coefficient, jnp.float32) @ factors.prod(-1)
    kept = self.counts.astype(np.float64) @ np.asarray(mask, np.float64)
    return self.coefficient @ (kept + self.constant).prod(-1)


def _products(num_channels: int, terms: list[tuple[float, list[np.ndarray]]]) -> Products:
  """Builds the sum from (coefficient, channel ids of each axis) terms."""
  width = max((len(axes) for _, axes in terms), default=0)
  counts = np.zeros((len(terms), width, num_channels + 1), np.float32)
  constant = np.ones((len(terms), width))
  for index, (_, axes) in enumerate(terms):
    for k, ids in enumerate(axes):
      np.add.at(counts[index, k], ids, 1.0)  # id -1 counts in the last column
      constant[index, k] = counts[index, k, FROZEN]
  coefficient = np.array([value for value, _ in terms], np.float64)
  return Products(coefficient, counts[..., :-1], constant)


def macs_products(graph: ChannelGraph) -> Products:
  """The multiply-adds of one example: sum over layers of macs_per_pair * kept on every axis."""
  return _products(
    graph.num_channels, [(layer.macs_per_pair, list(layer.axes)) for layer in graph.layers]
  )


def params_products(graph: ChannelGraph) -> Products:
  """The number of parameters: sum over leaves of the product of their kept axes."""
  terms = []
  for leaf in graph.leaves:
    if leaf.is_parameter:
      cut = [ids for ids in leaf.axes if (ids != FROZEN).any()]
      fixed = [len(ids) for ids in leaf.axes if not (ids != FROZEN).any()]
      terms.append((float(np.prod(fixed, dtype=np.float64)), cut))
  return _products(graph.num_channels, terms)


# A new resource is one entry: {name: products of the graph}.
RESOURCES: dict[str, Callable[[ChannelGraph], Products]] = {
  "macs": macs_products,
  "params": params_products,
}


def macs(graph: ChannelGraph, mask: Any) -> Any:
  """Multiply-adds of one example under a mask `[num_channels]`, 1 = keep.

  One multiply-add is one MAC. Convolutions and dot products count, at every output position
  with the whole kernel, padding included; normalisation, pooling and biases do not.
  """
  return macs_products(graph)(mask)


def params(graph: ChannelGraph, mask: Any) -> Any:
  """Number of parameters under a mask `[num_channels]`, 1 = keep; no batch statistics."""
  return params_products(graph)(mask)
