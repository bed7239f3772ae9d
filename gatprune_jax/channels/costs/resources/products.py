"""Counts that are products of the numbers of elements kept on some axes, and sums of them.

A network of many layers has many terms and many channels, but a channel occurs in a few terms only,
and the channels of a group occur in the same ones. So occurrences are held for each *kind* of
channel and for each term that it occurs in, and the time to count grows with the network's size.
"""

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
  data_fields=("coefficient", "constant", "kind_of", "kind", "term", "times"),
  meta_fields=("num_kinds",),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Products:
  """The counts coefficient_l prod_k (sum_p times_pk kept_g(p) + constant_lk) of L terms.

  Each factor is the number of elements kept on one axis. The sum is over the occurrences p in term
  l, of which each is of one kind g(p) of channels, and kept_g is the number of kept channels of
  that kind. Channels are of one kind if they occur equally often on the same axes.

  Attributes:
    coefficient: coefficient of each term, float64 `[L]`.
    constant: number of elements of axis k of term l that are never removed, float64 `[L, K]`.
    kind_of: the kind of every channel, int64 `[N]`, numbered from 0 in the order of the channels.
    kind: the kind of each occurrence, int64 `[P]`, ascending.
    term: the term of each occurrence, int64 `[P]`; no two have the same kind and the same term.
    times: how often one channel of the kind occurs on axis k of the term, float64 `[P, K]`.
    num_kinds: number of kinds, G.
  """

  coefficient: np.ndarray
  constant: np.ndarray
  kind_of: np.ndarray
  kind: np.ndarray
  term: np.ndarray
  times: np.ndarray
  num_kinds: int

  def of(self, mask: Any) -> Any:
    """Returns the count of every term under a mask `[N]`, `[L]`.

    The result is float32 if JAX is tracing the mask, and exact float64 otherwise.

    Raises:
      InputError: the mask has another shape.
    """
    check_mask_shape(mask, len(self.kind_of))
    if isinstance(mask, jax.core.Tracer):
      return self._traced(mask)
    return self.coefficient * self._factors(self._kept(np.asarray(mask, np.float64))).prod(-1)

  def with_one_more(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the counts of a concrete mask `[N]`, and what changes with one channel more.

    Adding either of two channels of one kind changes all counts equally. A thousand channels may be
    of only a dozen kinds, and one kind changes the few terms that it occurs in.

    Returns:
      The counts of the mask itself, float64 `[L]`; and by how much the count of the term of each
      occurrence grows with one more channel of its kind, float64 `[P]`.

    Raises:
      InputError: the mask has another shape.
    """
    check_mask_shape(mask, len(self.kind_of))
    factors = self._factors(self._kept(np.asarray(mask, bool)))
    counts = self.coefficient * factors.prod(-1)
    more = self.coefficient[self.term] * (factors[self.term] + self.times).prod(-1)
    return counts, more - counts[self.term]

  def without_each(
    self, sets: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns the dense network's counts, and what changes without each set of channels.

    Args:
      sets: S arrays of channel ids.

    Returns:
      The counts of the dense network, float64 `[L]`; and for each set the terms that it occurs in,
      and by how much their counts grow without it, which is a negative number.
    """
    factors = self._factors(self._kept(np.ones(len(self.kind_of))))
    counts = self.coefficient * factors.prod(-1)
    starts = np.searchsorted(self.kind, np.arange(self.num_kinds + 1))
    changes = []
    for channels in sets:
      kinds, removed = np.unique(self.kind_of[channels], return_counts=True)
      runs = [np.arange(starts[kind], starts[kind + 1]) for kind in kinds]
      found = np.concatenate([*runs, np.empty(0, np.int64)])
      lost = np.repeat(removed, [len(run) for run in runs])[:, None] * self.times[found]
      terms, row = np.unique(self.term[found], return_inverse=True)
      fewer = factors[terms]
      np.subtract.at(fewer, row, lost)
      changes.append((terms, self.coefficient[terms] * fewer.prod(-1) - counts[terms]))
    return counts, changes

  def _kept(self, mask: np.ndarray) -> np.ndarray:
    """Returns the number of kept channels of each kind, float64 `[G]`."""
    return np.bincount(self.kind_of, mask, self.num_kinds)

  def _factors(self, kept: np.ndarray) -> np.ndarray:
    """Returns the number of kept elements on each axis of each term, float64 `[L, K]`."""
    factors = self.constant.copy()
    np.add.at(factors, self.term, self.times * kept[self.kind, None])
    return factors

  def _traced(self, mask: jax.Array) -> jax.Array:
    """Returns the float32 counts as two small matrix products, which all devices do fast.

    Both matrices are made where they are used. They do not depend on the mask, so `vmap` over many
    masks makes them once.
    """
    shape = (self.num_kinds, *self.constant.shape)
    rows = jnp.zeros(shape, jnp.float32).at[self.kind, self.term]
    table = rows.set(self.times, unique_indices=True, mode="promise_in_bounds")
    is_kind = jax.nn.one_hot(self.kind_of, self.num_kinds, dtype=jnp.float32)
    # A mask of zeros and ones is counted exactly only if the products are not rounded.
    with jax.default_matmul_precision("highest"):
      kept = mask.astype(jnp.float32) @ is_kind
      factors = (kept @ table.reshape(self.num_kinds, -1)).reshape(self.constant.shape)
    factors += jnp.asarray(self.constant, jnp.float32)
    return jnp.asarray(self.coefficient, jnp.float32) * factors.prod(-1)


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
    counts, change = self.products.with_one_more(mask)
    of_kind = np.bincount(self.products.kind, change, self.products.num_kinds)
    return counts.sum() + np.where(mask, 0.0, of_kind[self.products.kind_of])

  def without_each(self, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the exact cost of the dense network without each set of channels, float64 `[S]`.

    Only the terms that a set occurs in are computed again, so the time for all groups of a network
    grows with its size and not with the square of it.

    Args:
      sets: S arrays of channel ids.
    """
    counts, changes = self.products.without_each(sets)
    return counts.sum() + np.array([change.sum() for _, change in changes])


def products(num_channels: int, terms: Sequence[tuple[float, Sequence[np.ndarray]]]) -> Products:
  """Returns the counts coefficient_l prod_k (elements kept on axis k of term l).

  Args:
    num_channels: number of channels, N.
    terms: for each term, its coefficient and a list with one array for each axis. The array holds
      the channel id of every element of the axis, as `Layer.outputs` does, int64 `[size]`. An
      element of id -1 is never removed.
  """
  coefficient = np.array([value for value, _ in terms], np.float64)
  width = max((len(axes) for _, axes in terms), default=0)
  constant = np.ones((len(terms), width))
  channels, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
  for index, (_, axes) in enumerate(terms):
    for k, ids in enumerate(axes):
      removable = ids[ids != FROZEN]
      constant[index, k] = len(ids) - len(removable)
      channels.append(removable)
      places.append(np.full(len(removable), index * width + k))
  channel, place = np.concatenate(channels), np.concatenate(places)
  kind_of, firsts = _kinds(num_channels, channel, place)
  of_first = np.isin(channel, firsts)  # one channel stands for all of its kind
  kind, place = kind_of[channel[of_first]], place[of_first]
  term, axis = place // max(width, 1), place % max(width, 1)
  pairs, number = np.unique(kind * len(terms) + term, return_inverse=True)
  times = np.zeros((len(pairs), width))
  np.add.at(times, (number, axis), 1.0)
  kind, term = pairs // max(len(terms), 1), pairs % max(len(terms), 1)
  return Products(coefficient, constant, kind_of, kind, term, times, len(firsts))


def _kinds(
  num_channels: int, channel: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers the kinds of channels, which are those at equal places, equally often.

  Args:
    num_channels: number of channels, N.
    channel: channel id of every element of every axis of every term, int64 `[E]`.
    place: a number for the term and the axis of each element, int64 `[E]`.

  Returns:
    The kind of every channel, int64 `[N]`, and the first channel of each kind, int64 `[G]`.
  """
  order = np.lexsort((place, channel))
  ends = np.searchsorted(channel[order], np.arange(1, num_channels))
  numbers: dict[bytes, int] = {}
  of_each = np.split(place[order], ends) if num_channels else []
  kind_of = [numbers.setdefault(places.tobytes(), len(numbers)) for places in of_each]
  kind_of = np.array(kind_of, np.int64)
  return kind_of, np.unique(kind_of, return_index=True)[1]


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
