"""How many candidates at once, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.evaluation import (
  first_in_chunks,
  images_at_once,
  in_blocks,
  largest_activation,
  masks_at_once,
)


def test_the_largest_activation_is_found_in_every_body():
  # The input has 3 elements and is not computed; the largest result is [5, 3] in a scan's body.
  def fn(x):
    step = lambda total, y: (total + jnp.broadcast_to(y[None], (5, 3)).max(0), y[0])
    return jax.jit(lambda x: jax.lax.scan(step, x, jnp.stack([x, x])))(x)

  assert largest_activation(fn, jax.ShapeDtypeStruct((3,), jnp.float32)) == 4 * 5 * 3
  assert largest_activation(fn, jax.ShapeDtypeStruct((3,), jnp.bfloat16)) == 2 * 5 * 3
  assert largest_activation(lambda x: x, jnp.ones(3)) == 1


@pytest.mark.parametrize(
  ("bytes_each", "own_weights", "backend", "expected"),
  [
    (10**6, False, "cpu", 3),
    (10**6, True, "cpu", 1),
    (10**8, False, "cpu", 1),
    (2**25, False, "gpu", 32),
    (2**25, True, "gpu", 32),
    (2**31, False, "tpu", 1),
  ],
)
def test_masks_at_once(bytes_each, own_weights, backend, expected):
  assert masks_at_once(bytes_each, own_weights, backend) == expected


@pytest.mark.parametrize(("size", "block"), [(1, 1), (3, 3), (4, 4), (6, 4), (7, 7), (100, 7)])
def test_images_in_equal_blocks(size, block):
  # Seven images in blocks of at most six: two of four, one image twice.
  seen = []

  def fn(x):
    seen.append(len(x))
    return 2 * x

  x = jnp.arange(14.0).reshape(7, 2)
  np.testing.assert_array_equal(in_blocks(fn, x, size), 2 * x)
  assert set(seen) == {block}


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_the_first_rows_are_computed_in_the_chunks_that_hold_them(count, chunk):
  calls = []

  def fn(rows):
    assert rows.shape == (chunk, 2)
    jax.debug.callback(lambda rows: calls.append(np.array(rows)), rows)
    return {"doubled": 2 * rows, "sum": rows.sum(1)}

  rows = jnp.arange(1.0, 11).reshape(5, 2)
  out = jax.jit(lambda rows, count: first_in_chunks(fn, rows, count, chunk))(rows, count)
  jax.effects_barrier()
  assert len(calls) == -(-count // chunk)
  done = min(5, len(calls) * chunk)
  expected = np.where(np.arange(5)[:, None] < done, rows, 0)
  np.testing.assert_array_equal(out["doubled"], 2 * expected)
  np.testing.assert_array_equal(out["sum"], expected.sum(1))


def test_images_at_once():
  # 16 x 32 x 32 float32 are 65,536 bytes, 48 of which make 3 MiB.
  assert images_at_once(2**16, "cpu") == 48
  assert images_at_once(2**30, "cpu") == 1
  assert images_at_once(2**16, "gpu") == 2**14
