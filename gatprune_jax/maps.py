"""A function over many rows: side by side, one after the other, or shared out over all devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax import mesh


def over_rows(fn: Callable[[Any], Any], rows: Any) -> Any:
  """`vmap(fn)` over the leading axis; on CPU one row after the other.

  For what fills a device by itself: a CPU only loses from having more of it side by side, where the
  activations of one stay in the cache.
  """
  if jax.default_backend() == "cpu":
    return jax.lax.map(fn, rows)
  return jax.vmap(fn)(rows)


def over_shares(fn: Callable[..., Any], num: int) -> Callable[..., Any]:
  """`fn(rows, *same)` on rows from `mesh.share_out`, which stay where they are; under jit.

  Args:
    fn: a tree of rows, and arrays that all rows share -> (a tree of rows, a second one, which is
      replicated).
    num: of rows, without those that fill the last share.
  """
  if mesh.num_devices() == 1:
    return fn

  def own(rows, *same):
    kept, told = fn(rows, *same)
    return kept, jax.lax.all_gather(told, mesh.AXIS, tiled=True)

  shared = mesh.on_each_device(own, jax.P(mesh.AXIS), (jax.P(mesh.AXIS), jax.P()))

  def call(rows, *same):
    kept, told = shared(rows, *same)
    return kept, jax.tree.map(lambda leaf: leaf[:num], told)

  return call


def first_rows(
  fn: Callable[..., Any], rows: Any, count: jax.Array | int, chunk: int, *same: Any
) -> Any:
  """`vmap(fn)` over the first of some rows, in as many whole chunks as hold these; under jit.

  A chunk is shared out over all devices, and its results are on each. One compiled call serves any
  count: on CPU the system hands every call new memory and clears it, which many small calls would
  wait for.

  Args:
    fn: `fn(row, *same)` -> a tree.
    rows: a tree of `[R, ...]`.
    count: how many of the rows are wanted, a scalar integer.
    chunk: rows that a device computes at once.
    *same: what all rows share.

  Returns:
    A tree of `[R, ...]`; past the chunks that were needed, zeros.
  """
  num = len(jax.tree.leaves(rows)[0])
  at_once = min(chunk * mesh.num_devices(), num)
  num_queued = -(-num // at_once) * at_once  # whole chunks
  queue = jax.tree.map(lambda leaf: leaf[jnp.arange(num_queued) % num], rows)
  compute = _over_devices(lambda some, *same: jax.vmap(lambda row: fn(row, *same))(some))
  take = lambda start: jax.tree.map(
    lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, at_once), queue
  )

  def next_chunk(carry):
    start, results = carry
    new = compute(take(start), *same)
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0)
    return start + at_once, jax.tree.map(put, results, new)

  empty = jax.tree.map(
    lambda one: jnp.zeros((num_queued, *one.shape[1:]), one.dtype),
    jax.eval_shape(lambda: compute(take(0), *same)),
  )
  start = (jnp.zeros((), jnp.int32), empty)
  _, results = jax.lax.while_loop(lambda carry: carry[0] < count, next_chunk, start)
  return jax.tree.map(lambda leaf: leaf[:num], results)


def _over_devices(fn: Callable[..., Any]) -> Callable[..., Any]:
  """`fn(rows, *same)` with equal shares of the rows on all devices, and its results on each."""
  if mesh.num_devices() == 1:
    return fn

  def shared(rows, *same):
    num = len(jax.tree.leaves(rows)[0])
    padded = jax.tree.map(lambda leaf: leaf[mesh.padded_rows(num)], rows)

    def own(padded, *same):
      each = mesh.share(num)
      first = jax.lax.axis_index(mesh.AXIS) * each
      mine = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, each), padded)
      return jax.lax.all_gather(fn(mine, *same), mesh.AXIS, tiled=True)

    out = mesh.on_each_device(own, jax.P(), jax.P())(padded, *same)
    return jax.tree.map(lambda leaf: leaf[:num], out)

  return shared


def equal_blocks(rows: jax.Array, size: int) -> jax.Array:
  """Equal blocks of at most `size` rows, the first of which fill up the last block.

  Args:
    rows: `[n, ...]`.
    size: largest block, at least one.

  Returns:
    `[k, b, ...]`.
  """
  num_blocks = -(-len(rows) // size)
  block = -(-len(rows) // num_blocks)
  filled = rows[np.arange(num_blocks * block) % len(rows)]
  return filled.reshape(num_blocks, block, *rows.shape[1:])


def in_blocks(fn: Callable[[jax.Array], Any], rows: jax.Array, size: int) -> Any:
  """`fn(rows)` one of their `equal_blocks` after the other, to keep activations in the cache.

  Args:
    fn: `[b, ...]` -> a tree of `[b, ...]`, each row on its own.
    rows: `[n, ...]`.
    size: largest block, at least one.
  """
  if len(rows) <= size:
    return fn(rows)
  out = jax.lax.map(fn, equal_blocks(rows, size))
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(rows)], out)
