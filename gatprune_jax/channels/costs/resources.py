"""Costs of a masked network, as sums over layers and variables.

A cost is counted exactly for a concrete mask and is differentiable in a mask that JAX traces.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, check_mask_shape


class Resource(Protocol):
  """The cost of a network as a function of its mask `[N]`, 1 = keep.

  A resource is a pytree, so that it can be an argument of a jitted function. Adding a channel to
  the mask must never lower the cost, because `Constraints.top_up` and the searches for feasible
  masks rely on that.

  Attributes:
    unit: name of the counted unit, in the plural.
  """

  unit: str

  def cost(self, mask: Any) -> Any:
    """Returns the cost under one mask `[N]`, a scalar in `unit`.

    If JAX is tracing the mask, the result is a float32 scalar that is differentiable in the mask,
    whose entries may be any numbers in [0, 1]. For any other mask the cost is counted exactly in
    float64.

    Raises:
      InputError: the mask has another shape.
    """

  def gradient(self, mask: Any) -> Any:
    """Returns the derivative of `cost` with respect to each entry of the mask, float32 `[N]`."""

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Returns the exact cost of a concrete mask plus channel n, for each n, float64 `[N]`.

    For a channel that the mask already keeps, this is the cost of the mask itself.

    Raises:
      InputError: the mask has another shape.
    """


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("coefficient", "counts", "constant"),
  meta_fields=("unit",),
)
@dataclasses.dataclass(frozen=True, eq=False)
class SumOfProducts:
  """The `Resource` sum_l coefficient_l prod_k (counts_lk . mask + constant_lk).

  Each factor is the number of elements kept on one axis.

  Attributes:
    coefficient: coefficient of each term, float64 `[L]`.
    counts: how often channel n occurs on axis k of term l, float32 `[L, K, N]`.
    constant: number of elements of axis k of term l that are never removed, float64 `[L, K]`.
    unit: name of the counted unit, in the plural.
  """

  coefficient: np.ndarray
  counts: np.ndarray
  constant: np.ndarray
  unit: str

  def cost(self, mask: Any) -> Any:
    """Implements `Resource.cost`."""
    check_mask_shape(mask, self.counts.shape[-1])
    if isinstance(mask, jax.core.Tracer):
      kept = jnp.asarray(self.counts) @ mask.astype(jnp.float32)
      factors = kept + jnp.asarray(self.constant, jnp.float32)
      return jnp.asarray(self.coefficient, jnp.float32) @ factors.prod(-1)
    kept = self.counts.astype(np.float64) @ np.asarray(mask, np.float64)
    return self.coefficient @ (kept + self.constant).prod(-1)

  def gradient(self, mask: Any) -> Any:
    """Implements `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Implements `Resource.with_one_more`."""
    check_mask_shape(mask, self.counts.shape[-1])
    mask, (counts, kind_of) = np.asarray(mask, bool), self._kinds
    kept = counts @ np.bincount(kind_of, mask, counts.shape[-1]) + self.constant
    more = self.coefficient @ (kept[..., None] + counts).prod(1)
    return np.where(mask, self.coefficient @ kept.prod(-1), more[kind_of])

  def without_each(self, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the exact cost of the dense network without each set of channels, float64 `[S]`.

    Only the terms that a set occurs in are computed again, so the time for all groups of a network
    grows with its size and not with the square of it.

    Args:
      sets: S arrays of channel ids.
    """
    channel, term, axis = np.nonzero(np.moveaxis(self.counts, -1, 0))  # in order of channels
    count = self.counts[term, axis, channel].astype(np.float64)
    starts = np.searchsorted(channel, np.arange(self.counts.shape[-1] + 1))
    factors = self.constant.copy()
    np.add.at(factors, (term, axis), count)
    terms = self.coefficient * factors.prod(-1)
    total, costs = terms.sum(), []
    for channels in sets:
      runs = zip(starts[channels], starts[np.asarray(channels) + 1], strict=True)
      where = np.concatenate([np.arange(*run) for run in runs])
      changed, row = np.unique(term[where], return_inverse=True)
      fewer = factors[changed]
      np.subtract.at(fewer, (row, axis[where]), count[where])
      costs.append(total - terms[changed].sum() + self.coefficient[changed] @ fewer.prod(-1))
    return np.array(costs)

  @functools.cached_property
  def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
    """The G distinct columns of `counts`, float64 `[L, K, G]`, and each channel's column, `[N]`.

    Adding either of two channels with equal columns changes the cost equally. A thousand channels
    may have only a dozen distinct columns, and then a dozen costs give those of all channels.
    """
    numbers: dict[bytes, int] = {}
    columns = np.moveaxis(self.counts, -1, 0)
    kind_of = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in columns])
    _, first = np.unique(kind_of, return_index=True)
    return self.counts[..., first].astype(np.float64), kind_of


def sum_of_products(
  num_channels: int, terms: list[tuple[float, list[np.ndarray]]], unit: str
) -> SumOfProducts:
  """Returns the resource sum_l coefficient_l prod_k (elements kept on axis k of term l).

  Args:
    num_channels: number of channels, N.
    terms: for each term, its coefficient and a list with one array for each axis. The array holds
      the channel id of every element of the axis, as `Layer.outputs` does, int64 `[size]`. An
      element of id -1 is never removed.
    unit: name of the counted unit, in the plural.
  """
  width = max((len(axes) for _, axes in terms), default=0)
  counts = np.zeros((len(terms), width, num_channels + 1), np.float32)
  constant = np.ones((len(terms), width))
  for index, (_, axes) in enumerate(terms):
    for k, ids in enumerate(axes):
      np.add.at(counts[index, k], ids, 1.0)  # id -1 is counted in the last column
      constant[index, k] = counts[index, k, FROZEN]
  coefficient = np.array([value for value, _ in terms], np.float64)
  return SumOfProducts(coefficient, counts[..., :-1], constant, unit)


def _macs(graph: ChannelGraph) -> Resource:
  """Sum over layers of macs_per_pair * product over axes of the number of kept elements."""
  terms = [(layer.macs_per_pair, list(layer.axes)) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "MACs")


def _params(graph: ChannelGraph) -> Resource:
  """Sum over parameter arrays of the product over axes of the number of kept elements."""
  terms = []
  for leaf in graph.leaves:
    if leaf.is_parameter:
      cut = [ids for ids in leaf.axes if (ids != FROZEN).any()]
      fixed = [len(ids) for ids in leaf.axes if not (ids != FROZEN).any()]
      terms.append((float(np.prod(fixed, dtype=np.float64)), cut))
  return sum_of_products(graph.num_channels, terms, "parameters")


def _activation_bytes(graph: ChannelGraph) -> Resource:
  """Sum over layers of bytes_per_output * kept outputs * kept elements of every batch axis."""
  terms = [(layer.bytes_per_output, [layer.outputs, *layer.carried_axes]) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "bytes")


# A new resource needs one entry: {name: function from a graph to its network's `Resource`}.
RESOURCES: dict[str, Callable[[ChannelGraph], Resource]] = {
  "macs": _macs,
  "params": _params,
  "activation_bytes": _activation_bytes,
}


def macs(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the multiply-adds of one example under a mask `[num_channels]`, 1 = keep.

  One multiply-add is one MAC. Convolutions and dot products are counted with the whole kernel at
  every output position, including multiplications by padding. Normalisation, pooling and biases
  are not counted.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return _macs(graph).cost(mask)


def params(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the parameters under a mask `[num_channels]`, 1 = keep, without batch statistics.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return _params(graph).cost(mask)


def activation_bytes(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the bytes that layers write for one example under a mask `[num_channels]`, 1 = keep.

  The outputs of all convolutions and dot products that `macs` counts are added up, each in its own
  dtype. This includes layers inside operations without a rule for channels, and a layer inside a
  `scan` is counted once for each iteration. The network's input and the results of element-wise
  operations, normalisation and pooling are not counted. The count is therefore the total that the
  layers write, not the memory in use at one time. A layer that `compact` leaves out, because all
  of its inputs are removed, is still counted.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return _activation_bytes(graph).cost(mask)
