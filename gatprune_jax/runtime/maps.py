"""A function over many rows: side by side, one after the other, or shared out over all devices."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.runtime import mesh


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
  """`vmap(fn)` over the first of some rows, in as many whole chunks as hold these; under jit.

  The chunks are dealt out to the devices in turn. Each device goes through its own without waiting
  for the others, and they meet once, at the end, when all results are copied to every device. One
  compiled call serves any count: on CPU the system hands every call new memory and clears it,
  which many small calls would wait for.

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
  chunk = min(chunk, mesh.share(num))
  num_rounds = -(-num // (chunk * mesh.num_devices()))
  dealt_shape = (num_rounds, mesh.num_devices(), chunk)
  order = (np.arange(math.prod(dealt_shape)) % num).reshape(dealt_shape).swapaxes(0, 1)
  dealt = jax.tree.map(lambda leaf: leaf[order], rows)  # [devices, rounds, chunk, ...]
  compute = lambda some, *same: jax.vmap(lambda row: fn(row, *same))(some)

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
