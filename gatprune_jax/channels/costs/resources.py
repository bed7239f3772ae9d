"""What a masked network costs: exact sums over layers and variables, differentiable in the mask."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, check_mask_shape


class Resource(Protocol):
  """What a network costs as a function of its mask `[N]`, 1 = keep.

  A pytree, so that it can be an argument under jit. The cost never falls where a channel is added:
  `Constraints.top_up` and the searches for what fits rely on that.

  Attributes:
    unit: what is counted, in the plural.
  """

  unit: str

  def cost(self, mask: Any) -> Any:
    """The cost under one mask `[N]`, a scalar in `unit`.

    A mask that JAX is tracing gives a float32 scalar, differentiable in a mask of any entries in
    [0, 1]; any other mask is counted exactly in float64.

    Raises:
      InputError: where the mask has another shape.
    """

  def gradient(self, mask: Any) -> Any:
    """The derivative of `cost` with respect to every entry of the mask, float32 `[N]`."""

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """`cost` of a concrete mask with each channel added to it, exact, float64 `[N]`.

    It is the cost of the mask itself where the channel is kept already.

    Raises:
      InputError: where the mask has another shape.
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
    coefficient: of each term, float64 `[L]`.
    counts: how often channel n occurs on axis k of term l, float32 `[L, K, N]`.
    constant: elements of the axis that are never removed, float64 `[L, K]`.
    unit: what is counted.
  """

  coefficient: np.ndarray
  counts: np.ndarray
  constant: np.ndarray
  unit: str

  def cost(self, mask: Any) -> Any:
    """See `Resource.cost`."""
    check_mask_shape(mask, self.counts.shape[-1])
    if isinstance(mask, jax.core.Tracer):
      kept = jnp.asarray(self.counts) @ mask.astype(jnp.float32)
      factors = kept + jnp.asarray(self.constant, jnp.float32)
      return jnp.asarray(self.coefficient, jnp.float32) @ factors.prod(-1)
    kept = self.counts.astype(np.float64) @ np.asarray(mask, np.float64)
    return self.coefficient @ (kept + self.constant).prod(-1)

  def gradient(self, mask: Any) -> Any:
    """See `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """See `Resource.with_one_more`."""
    check_mask_shape(mask, self.counts.shape[-1])
    mask, (counts, kind_of) = np.asarray(mask, bool), self._kinds
    kept = counts @ np.bincount(kind_of, mask, counts.shape[-1]) + self.constant
    more = self.coefficient @ (kept[..., None] + counts).prod(1)
    return np.where(mask, self.coefficient @ kept.prod(-1), more[kind_of])

  @functools.cached_property
  def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
    """The distinct `counts` of one channel, float64 `[L, K, G]`, and whose are which, `[N]`.

    A thousand channels may differ in a dozen ways only, and to try each of them is to try a dozen.
    """
    numbers: dict[bytes, int] = {}
    columns = np.moveaxis(self.counts, -1, 0)
    kind_of = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in columns])
    _, first = np.unique(kind_of, return_index=True)
    return self.counts[..., first].astype(np.float64), kind_of


def sum_of_products(
  num_channels: int, terms: list[tuple[float, list[np.ndarray]]], unit: str
) -> SumOfProducts:
  """The resource sum_l coefficient_l prod_k (elements kept on axis k of term l).

  Args:
    num_channels: N.
    terms: of each term, its coefficient and the channel id of every element of each of its axes,
      such as `Layer.outputs`; elements of id -1 are never removed.
    unit: what is counted, in the plural.
  """
  width = max((len(axes) for _, axes in terms), default=0)
  counts = np.zeros((len(terms), width, num_channels + 1), np.float32)
  constant = np.ones((len(terms), width))
  for index, (_, axes) in enumerate(terms):
    for k, ids in enumerate(axes):
      np.add.at(counts[index, k], ids, 1.0)  # id -1 counts in the last column
      constant[index, k] = counts[index, k, FROZEN]
  coefficient = np.array([value for value, _ in terms], np.float64)
  return SumOfProducts(coefficient, counts[..., :-1], constant, unit)


def _macs(graph: ChannelGraph) -> Resource:
  """Sum over layers of macs_per_pair * kept on every axis."""
  terms = [(layer.macs_per_pair, list(layer.axes)) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "MACs")


def _params(graph: ChannelGraph) -> Resource:
  """Sum over leaves of the product of their kept axes."""
  terms = []
  for leaf in graph.leaves:
    if leaf.is_parameter:
      cut = [ids for ids in leaf.axes if (ids != FROZEN).any()]
      fixed = [len(ids) for ids in leaf.axes if not (ids != FROZEN).any()]
      terms.append((float(np.prod(fixed, dtype=np.float64)), cut))
  return sum_of_products(graph.num_channels, terms, "parameters")


def _activation_bytes(graph: ChannelGraph) -> Resource:
  """Sum over layers of bytes_per_output * kept outputs * kept elements of every batch axis."""
  terms = [(layer.bytes_per_output, [layer.outputs, *layer.batch_axes]) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "bytes")


# A new resource is one entry: {name: what the graph's network costs}.
RESOURCES: dict[str, Callable[[ChannelGraph], Resource]] = {
  "macs": _macs,
  "params": _params,
  "activation_bytes": _activation_bytes,
}


def macs(graph: ChannelGraph, mask: Any) -> Any:
  """Multiply-adds of one example under a mask `[num_channels]`, 1 = keep.

  One multiply-add is one MAC. Convolutions and dot products count, at every output position
  with the whole kernel, padding included; normalisation, pooling and biases do not.

  Returns:
    Exact float64, or a float32 scalar where JAX traces the mask.

  Raises:
    InputError: where the mask has another shape.
  """
  return _macs(graph).cost(mask)


def params(graph: ChannelGraph, mask: Any) -> Any:
  """Number of parameters under a mask `[num_channels]`, 1 = keep; no batch statistics.

  Returns and raises as `macs` does.
  """
  return _params(graph).cost(mask)


def activation_bytes(graph: ChannelGraph, mask: Any) -> Any:
  """Bytes that the layers write for one example under a mask `[num_channels]`, 1 = keep.

  The output of every convolution and dot product counts, in its own type, wherever `macs` counts
  the layer: those inside operations that have no rule too, once for each iteration of a `scan`.
  The results of element-wise operations, normalisation and pooling do not, nor does the input.
  So it is what layers write in total, not what is in memory at once. A layer that `compact` leaves
  out, because all of its inputs are removed, still counts.

  Returns and raises as `macs` does.
  """
  return _activation_bytes(graph).cost(mask)
