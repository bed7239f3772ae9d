"""Counts that are products of the numbers of elements kept on some axes, and sums of them."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, check_mask_shape


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("coefficient", "counts", "constant"),
  meta_fields=(),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Products:
  """The counts coefficient_l prod_k (counts_lk . mask + constant_lk), one for each of L terms.

  Each factor is the number of elements kept on one axis.

  Attributes:
    coefficient: coefficient of each term, float64 `[L]`.
    counts: how often channel n occurs on axis k of term l, float32 `[L, K, N]`.
    constant: number of elements of axis k of term l that are never removed, float64 `[L, K]`.
  """

  coefficient: np.ndarray
  counts: np.ndarray
  constant: np.ndarray

  def of(self, mask: Any) -> Any:
    """Returns the count of every term under a mask `[N]`, `[L]`.

    The result is float32 if JAX is tracing the mask, and exact float64 otherwise.

    Raises:
      InputError: the mask has another shape.
    """
    check_mask_shape(mask, self.counts.shape[-1])
    if isinstance(mask, jax.core.Tracer):
      kept = jnp.asarray(self.counts) @ mask.astype(jnp.float32)
      factors = kept + jnp.asarray(self.constant, jnp.float32)
      return jnp.asarray(self.coefficient, jnp.float32) * factors.prod(-1)
    kept = self.counts.astype(np.float64) @ np.asarray(mask, np.float64)
    return self.coefficient * (kept + self.constant).prod(-1)

  def with_one_more(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the counts of a concrete mask `[N]` and of the masks with one channel more.

    Adding either of two channels with equal columns in `counts` changes all counts equally. A
    thousand channels may have only a dozen distinct columns, and then a dozen sets of counts are
    those of all channels.

    Returns:
      The counts of the mask itself, float64 `[L]`; the counts with one more channel of each of G
      kinds, float64 `[L, G]`; and the kind of every channel, int64 `[N]`.

    Raises:
      InputError: the mask has another shape.
    """
    check_mask_shape(mask, self.counts.shape[-1])
    counts, kind_of = self._kinds
    mask = np.asarray(mask, bool)
    kept = counts @ np.bincount(kind_of, mask, counts.shape[-1]) + self.constant
    more = self.coefficient[:, None] * (kept[..., None] + counts).prod(1)
    return self.coefficient * kept.prod(-1), more, kind_of

  @functools.cached_property
  def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
    """The G distinct columns of `counts`, float64 `[L, K, G]`, and each channel's column, `[N]`."""
    numbers: dict[bytes, int] = {}
    columns = np.moveaxis(self.counts, -1, 0)
    kind_of = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in columns])
    _, first = np.unique(kind_of, return_index=True)
    return self.counts[..., first].astype(np.float64), kind_of


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=("products",), meta_fields=("unit",)
)
@dataclasses.dataclass(frozen=True, eq=False)
class SumOfProducts:
  """The `Resource` that adds up the terms of `Products`.

  Attributes:
    products: the terms.
    unit: name of the counted unit, in the plural.
  """

  products: Products
  unit: str

  def cost(self, mask: Any) -> Any:
    """Implements `Resource.cost`."""
    return self.products.of(mask).sum()

  def gradient(self, mask: Any) -> Any:
    """Implements `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Implements `Resource.with_one_more`."""
    own, more, kind_of = self.products.with_one_more(mask)
    return np.where(mask, own.sum(), more.sum(0)[kind_of])

  def without_each(self, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the exact cost of the dense network without each set of channels, float64 `[S]`.

    Only the terms that a set occurs in are computed again, so the time for all groups of a network
    grows with its size and not with the square of it.

    Args:
      sets: S arrays of channel ids.
    """
    coefficient, counts = self.products.coefficient, self.products.counts
    channel, term, axis = np.nonzero(np.moveaxis(counts, -1, 0))  # in order of channels
    count = counts[term, axis, channel].astype(np.float64)
    starts = np.searchsorted(channel, np.arange(counts.shape[-1] + 1))
    factors = self.products.constant.copy()
    np.add.at(factors, (term, axis), count)
    terms = coefficient * factors.prod(-1)
    total, costs = terms.sum(), []
    for channels in sets:
      runs = zip(starts[channels], starts[np.asarray(channels) + 1], strict=True)
      where = np.concatenate([np.arange(*run) for run in runs])
      changed, row = np.unique(term[where], return_inverse=True)
      fewer = factors[changed]
      np.subtract.at(fewer, (row, axis[where]), count[where])
      costs.append(total - terms[changed].sum() + coefficient[changed] @ fewer.prod(-1))
    return np.array(costs)


def products(num_channels: int, terms: Sequence[tuple[float, Sequence[np.ndarray]]]) -> Products:
  """Returns the counts coefficient_l prod_k (elements kept on axis k of term l).

  Args:
    num_channels: number of channels, N.
    terms: for each term, its coefficient and a list with one array for each axis. The array holds
      the channel id of every element of the axis, as `Layer.outputs` does, int64 `[size]`. An
      element of id -1 is never removed.
  """
  width = max((len(axes) for _, axes in terms), default=0)
  counts = np.zeros((len(terms), width, num_channels + 1), np.float32)
  constant = np.ones((len(terms), width))
  for index, (_, axes) in enumerate(terms):
    for k, ids in enumerate(axes):
      np.add.at(counts[index, k], ids, 1.0)  # id -1 is counted in the last column
      constant[index, k] = counts[index, k, FROZEN]
  coefficient = np.array([value for value, _ in terms], np.float64)
  return Products(coefficient, counts[..., :-1], constant)


def sum_of_products(
  num_channels: int, terms: Sequence[tuple[float, Sequence[np.ndarray]]], unit: str
) -> SumOfProducts:
  """Returns the resource sum_l coefficient_l prod_k (elements kept on axis k of term l).

  Args:
    num_channels: number of channels, N.
    terms: coefficient and axes of each term; see `products`.
    unit: name of the counted unit, in the plural.
  """
  return SumOfProducts(products(num_channels, terms), unit)
