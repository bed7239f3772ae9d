"""Maps a function over many rows: side by side, one after the other, or on all devices."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.runtime import mesh


def over_rows(fn: Callable[[Any], Any], rows: Any) -> Any:
  """Computes `vmap(fn)(rows)`; on CPU one row after the other.

  This is meant for functions of which a single row keeps a device busy. On CPU, several such rows
  side by side are slower: the activations of a single row stay in the cache, those of several do
  not.

  Args:
    fn: a function of one row: a tree of arrays `[...]` -> a tree.
    rows: a tree of `[R, ...]`.
  """
  if jax.default_backend() == "cpu":
    return jax.lax.map(fn, rows)
  return jax.vmap(fn)(rows)


def over_shares(fn: Callable[..., Any], num: int) -> Callable[..., Any]:
  """Returns a function that calls `fn` on every device with the rows of that device; under jit.

  Args:
    fn: `fn(rows, *same)` -> (kept, told), two trees of rows `[share, ...]`; `same` are arrays that
      all rows share.
    num: number of rows, without those that fill up the last device's share.

  Returns:
    A function of rows from `mesh.share_out`, and `*same`. Of its two results, the rows of the first
    stay on their devices; the second is `[num, ...]`, copied to every device.
  """

  def own(rows, *same):
    kept, told = fn(rows, *same)
    return kept, mesh.gather_rows(told)

  shared = mesh.on_each_device(own, jax.P(mesh.AXIS), (jax.P(mesh.AXIS), jax.P()))

  def call(rows, *same):
    kept, told = shared(rows, *same)
    return kept, jax.tree.map(lambda leaf: leaf[:num], told)

  return call


def first_rows(
  fn: Callable[..., Any], rows: Any, count: jax.Array | int, chunk: int, *same: Any
) -> Any:
  """Computes `vmap(fn)` over the first `count` rows, in whole chunks of rows; under jit.

  The chunks are dealt out to the devices in turn. Each device computes its chunks without waiting
  for the other devices. Only at the end they exchange data, when all results are copied to every
  device. One compiled call serves any count, because many small calls would be slower: on CPU the
  operating system gives every call new memory, which it clears first.

  Args:
    fn: `fn(row, *same)` -> a tree.
    rows: a tree of `[R, ...]`.
    count: number of rows that are wanted, a scalar integer.
    chunk: number of rows that a device computes at once.
    *same: arrays that all rows share.

  Returns:
    A tree of `[R, ...]`, with zeros after the last chunk that was needed.
  """
  num = len(jax.tree.leaves(rows)[0])
  chunk = min(chunk, mesh.share(num))
  num_rounds = -(-num // (chunk * mesh.num_devices()))
  dealt_shape = (num_rounds, mesh.num_devices(), chunk)
  order = (np.arange(math.prod(dealt_shape)) % num).reshape(dealt_shape).swapaxes(0, 1)
  dealt = jax.tree.map(lambda leaf: leaf[order], rows)  # [devices, rounds, chunk, ...]
  # The jitted function is traced only once, for the shapes of its results and for the loop.
  compute = jax.jit(lambda some, *same: jax.vmap(lambda row: fn(row, *same))(some), inline=True)

  def own_chunks(dealt, count, *same):
    take = lambda i: jax.tree.map(lambda leaf: leaf[0, i], dealt)

    def next_chunk(carry):
      i, results = carry
      put = lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new[None], i, 1)
      return i + 1, jax.tree.map(put, results, compute(take(i), *same))

    empty = jax.tree.map(
      lambda one: jnp.zeros((1, num_rounds, *one.shape), one.dtype),
      jax.eval_shape(lambda: compute(take(0), *same)),
    )
    chunks_before = lambda i: i * mesh.num_devices() + mesh.device_index()
    wanted = lambda carry: chunks_before(carry[0]) * chunk < count
    _, results = jax.lax.while_loop(wanted, next_chunk, (jnp.zeros((), jnp.int32), empty))
    return mesh.gather_rows(results)

  results = mesh.on_each_device(own_chunks, jax.P(mesh.AXIS), jax.P())(dealt, count, *same)
  in_order = lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[3:])[:num]
  return jax.tree.map(in_order, results)


def equal_blocks(rows: jax.Array, size: int) -> jax.Array:
  """Returns the rows in equal blocks of at most `size` rows; the first rows fill up the last block.

  Args:
    rows: `[n, ...]`.
    size: largest number of rows in a block, at least 1.

  Returns:
    `[k, b, ...]`, k blocks of b rows.
  """
  num_blocks = -(-len(rows) // size)
  block = -(-len(rows) // num_blocks)
  filled = rows[np.arange(num_blocks * block) % len(rows)]
  return filled.reshape(num_blocks, block, *rows.shape[1:])


def in_blocks(
  fn: Callable[[jax.Array], Any], rows: jax.Array, size: int, count: jax.Array | int | None = None
) -> Any:
  """Computes `fn(rows)` block by block, so that activations stay in the cache.

  Args:
    fn: `[b, ...]` -> a tree of `[b, ...]`; each row must depend only on the same input row.
    rows: `[n, ...]`.
    size: largest number of rows in a block, at least 1; see `equal_blocks`.
    count: number of first rows that are wanted, a scalar integer, possibly traced; None: all.

  Returns:
    A tree of `[n, ...]`, with zeros after the last block that was needed.
  """
  if len(rows) <= size:
    return fn(rows)
  blocks = equal_blocks(rows, size)
  out = jax.lax.map(fn, blocks) if count is None else _first_blocks(fn, blocks, count)
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(rows)], out)


def _first_blocks(fn: Callable[[jax.Array], Any], blocks: jax.Array, count: jax.Array | int) -> Any:
  """Computes `map(fn, blocks)` for the blocks that hold the first `count` rows; zeros elsewhere."""
  num, size = blocks.shape[:2]
  fn = jax.jit(fn, inline=True)  # traced only once, for the shapes of its results and for the loop
  one = jax.eval_shape(fn, jax.ShapeDtypeStruct(blocks.shape[1:], blocks.dtype))
  empty = jax.tree.map(lambda leaf: jnp.zeros((num, *leaf.shape), leaf.dtype), one)

  def next_block(i, results):
    put = lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, i, 0)
    return jax.tree.map(put, results, fn(blocks[i]))

  return jax.lax.fori_loop(0, jnp.minimum(-(-count // size), num), next_block, empty)
