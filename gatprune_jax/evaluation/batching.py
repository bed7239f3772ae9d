"""How much is computed at once: on CPU what its cache holds."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

# Largest activation of all that is computed at once, bytes. On CPU two masks of a network with
# 1.2 MB each were faster together than one by one, two with 2.1 MB slower, and 256 CIFAR images,
# 17 MB, slower at once than in blocks. Accelerators want much work at once and have memory for
# many activations of this size; 1 GiB is not measured.
_CPU_BYTES = 3 * 2**20
_ACCELERATOR_BYTES = 2**30


def equal_blocks(images: jax.Array, size: int) -> jax.Array:
  """Equal blocks of at most `size` images, the first of which fill up the last block.

  Args:
    images: `[n, ...]`.
    size: largest block, at least one.

  Returns:
    `[k, b, ...]`.
  """
  num_blocks = -(-len(images) // size)
  block = -(-len(images) // num_blocks)
  rows = images[np.arange(num_blocks * block) % len(images)]
  return rows.reshape(num_blocks, block, *images.shape[1:])


def in_blocks(fn: Callable[[jax.Array], jax.Array], images: jax.Array, size: int) -> jax.Array:
  """`fn(images)` one of their `equal_blocks` after the other.

  Args:
    fn: `[b, ...] -> [b, ...]`, each image on its own.
    images: `[n, ...]`.
    size: largest block, at least one.
  """
  if len(images) <= size:
    return fn(images)
  out = jax.lax.map(fn, equal_blocks(images, size))
  return out.reshape(-1, *out.shape[2:])[: len(images)]


def in_chunks(fn: Callable[[Any], Any], candidates: Any, chunk: int) -> Any:
  """`vmap(fn)` over the leading axis, at most `chunk` at a time to bound memory."""
  return jax.lax.map(fn, candidates, batch_size=chunk)


def first_in_chunks(
  fn: Callable[[jax.Array], Any], rows: jax.Array, count: jax.Array, chunk: int
) -> Any:
  """`fn(rows)` for the first of them, in as many whole chunks as hold these.

  One compiled call for any count. On CPU the system hands every call new memory and clears it,
  which many small calls would wait for.

  Args:
    fn: `chunk` rows `[chunk, ...]` -> a tree of `[chunk, ...]`, each from its own row alone.
    rows: `[R, ...]`.
    count: scalar integer, how many are wanted.
    chunk: how many at a time, at most R.

  Returns:
    A tree of `[R, ...]`; past the chunks that were needed, zeros.
  """
  num = len(rows)
  queue = rows[jnp.arange(-(-num // chunk) * chunk) % num]  # whole chunks

  def next_chunk(carry):
    start, results = carry
    new = fn(jax.lax.dynamic_slice_in_dim(queue, start, chunk))
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0)
    return start + chunk, jax.tree.map(put, results, new)

  empty = jax.tree.map(
    lambda one: jnp.zeros((len(queue), *one.shape[1:]), one.dtype),
    jax.eval_shape(fn, queue[:chunk]),
  )
  start = (jnp.zeros((), jnp.int32), empty)
  _, results = jax.lax.while_loop(lambda carry: carry[0] < count, next_chunk, start)
  return jax.tree.map(lambda leaf: leaf[:num], results)


def images_at_once(bytes_each: int, backend: str) -> int:
  """How many images to evaluate at once, at least one.

  Args:
    bytes_each: of one image's largest activation.
    backend: as `jax.default_backend()` names it.
  """
  return max(1, (_CPU_BYTES if backend == "cpu" else _ACCELERATOR_BYTES) // max(1, bytes_each))


def masks_at_once(bytes_each: int, own_weights: bool, backend: str) -> int:
  """How many masks to score at once, at least one.

  Args:
    bytes_each: of the largest activation, see `largest_activation`.
    own_weights: whether every mask has weights of its own, because steps are taken before scoring.
    backend: as `jax.default_backend()` names it.
  """
  return 1 if own_weights and backend == "cpu" else images_at_once(bytes_each, backend)


def largest_activation(fn: Callable[..., Any], *args: Any) -> int:
  """Bytes of the largest array that `fn(*args)` computes; nothing is run.

  Args:
    fn: any traceable function.
    *args: arrays or `jax.ShapeDtypeStruct`s.
  """
  return _largest(jax.make_jaxpr(lambda *args: fn(*args))(*args).jaxpr)


def _largest(jaxpr: jex_core.Jaxpr) -> int:
  results = [
    math.prod(var.aval.shape) * var.aval.dtype.itemsize for eqn in jaxpr.eqns for var in eqn.outvars
  ]
  bodies = [
    _largest(getattr(body, "jaxpr", body))
    for eqn in jaxpr.eqns
    for body in jex_core.jaxprs_in_params(eqn.params)
  ]
  return max([1, *results, *bodies])
