"""The memory that the activations of a masked network take at once in a forward pass."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources.products import Products, products
from gatprune_jax.channels.graph import ChannelGraph


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=("arrays", "alive"), meta_fields=("unit",)
)
@dataclasses.dataclass(frozen=True, eq=False)
class Peak:
  """The `Resource` max_t sum_l alive_tl bytes_l(mask).

  Where several moments tie, the gradient is the mean of theirs.

  Attributes:
    arrays: the bytes of each of L sorts of arrays.
    alive: how many arrays of each sort are in memory at each of T moments, float64 `[T, L]`.
    unit: name of the counted unit, in the plural.
  """

  arrays: Products
  alive: np.ndarray
  unit: str = "bytes"

  def cost(self, mask: Any) -> Any:
    """Implements `Resource.cost`."""
    xp = jnp if isinstance(mask, jax.core.Tracer) else np
    sizes = self.arrays.of(mask)
    return (xp.asarray(self.alive, sizes.dtype) @ sizes).max()

  def gradient(self, mask: Any) -> Any:
    """Implements `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Implements `Resource.with_one_more`."""
    counts, change = self.arrays.with_one_more(mask)
    of_kind = np.zeros((len(counts), self.arrays.num_kinds))
    of_kind[self.arrays.term, self.arrays.kind] = change
    at = self.alive @ counts
    more = (at[:, None] + self.alive @ of_kind).max(0)
    return np.where(mask, at.max(), more[self.arrays.kind_of])

  def without_each(self, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the exact cost of the dense network without each set of channels, float64 `[S]`.

    Args:
      sets: S arrays of channel ids.
    """
    counts, changes = self.arrays.without_each(sets)
    at = self.alive @ counts
    return np.array([(at + self.alive[:, terms] @ change).max() for terms, change in changes])


def make_activation_bytes(graph: ChannelGraph, deployment: Deployment) -> Peak:
  """Returns the largest sum of the bytes of arrays that are in memory at one moment."""
  batch = deployment.batch
  sorts: dict[tuple, int] = {}
  numbers, terms = [], []
  for array in graph.activations:
    size = array.shared_bytes + batch * array.example_bytes
    sort = (size, *(ids.tobytes() for ids in array.axes))
    if sort not in sorts:
      sorts[sort] = len(sorts)
      terms.append((size, array.axes))
    numbers.append(sorts[sort])
  numbers = np.array(numbers)
  # Layers that are alike hold the same sorts, so there are fewer different moments than moments.
  moments = dict.fromkeys(tuple(np.sort(numbers[list(moment)])) for moment in graph.moments)
  alive = np.stack([np.bincount(moment, minlength=len(sorts)) for moment in moments])
  return Peak(products(graph.num_channels, terms), dominant_rows(alive).astype(np.float64))


def activation_bytes(graph: ChannelGraph, mask: Any, batch: int = 1) -> Any:
  """Counts the bytes of activations in memory at once under a mask `[num_channels]`, 1 = keep.

  This is the largest sum, over all moments of one forward pass, of the sizes of the arrays that
  are alive: the inputs, and everything computed that is still needed. The variables do not count;
  `weight_bytes` counts them. The arrays are those that XLA writes to memory after it has fused
  element-wise operations into one another; see `read_memory`. Which arrays are written over others
  is decided for the dense network; a group of which one channel is left may allow more or less.

  Args:
    graph: the network's channels.
    mask: `[num_channels]`, 1 = keep.
    batch: number of examples in the forward pass.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape, or the batch is not positive.
  """
  return make_activation_bytes(graph, Deployment(batch)).cost(mask)


def dominant_rows(alive: np.ndarray) -> np.ndarray:
  """Returns the rows that no other row exceeds; all rows differ, and each holds something.

  A row exceeds another if none of its columns is smaller.
  """
  holds = alive > 0
  num_holding = holds.sum(0)
  kept = []
  for row, held in zip(alive, holds, strict=True):
    # Only rows that hold the rarest of a row's arrays can exceed the row, and those are few.
    rarest = min(np.flatnonzero(held), key=num_holding.__getitem__)
    rivals = alive[holds[:, rarest]]
    if (rivals >= row).all(1).sum() == 1:
      kept.append(row)
  return np.stack(kept)
