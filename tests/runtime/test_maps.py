"""Tests of functions over many rows, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.runtime.maps import first_rows, in_blocks, over_rows


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_rows_in_either_way_are_the_same(backend, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  rows = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3.0)}
  out = over_rows(lambda row: row["a"] * row["b"], rows)
  np.testing.assert_array_equal(out, [[0, 0], [2, 3], [8, 10]])


@pytest.mark.parametrize(("size", "block"), [(1, 1), (3, 3), (4, 4), (6, 4), (7, 7), (100, 7)])
def test_images_in_equal_blocks(size, block):
  # Seven images in blocks of at most six make two blocks of four, which repeat one image.
  seen = []

  def fn(x):
    seen.append(len(x))
    return 2 * x

  x = jnp.arange(14.0).reshape(7, 2)
  np.testing.assert_array_equal(in_blocks(fn, x, size), 2 * x)
  assert set(seen) == {block}


@pytest.mark.parametrize("count", [0, 1, 4, 5, 7])
def test_only_blocks_that_hold_wanted_rows_are_computed(count):
  # Seven rows make two blocks of four; the second one repeats a row.
  x, computed = jnp.arange(1.0, 15).reshape(7, 2), []

  def fn(rows):
    jax.debug.callback(lambda rows: computed.append(len(rows)), rows)
    return 2 * rows

  out = jax.jit(lambda x, count: in_blocks(fn, x, 4, count))(x, count)
  jax.effects_barrier()
  assert computed == [4] * -(-count // 4)
  np.testing.assert_array_equal(out, np.where(np.arange(7)[:, None] < 4 * len(computed), 2 * x, 0))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_the_first_rows_are_computed_in_the_chunks_that_hold_them(count, chunk):
  calls = []

  def fn(row, factor):
    jax.debug.callback(lambda row: calls.append(np.array(row)), row)
    return {"doubled": factor * row["x"], "sum": row["x"].sum()}

  rows = jnp.arange(1.0, 11).reshape(5, 2)
  compute = jax.jit(lambda rows, count: first_rows(fn, {"x": rows}, count, chunk, 2.0))
  out = compute(rows, count)
  jax.effects_barrier()
  num_chunks = -(-count // chunk)
  assert len(calls) == num_chunks * chunk  # whole chunks
  done = min(5, len(calls))
  expected = np.where(np.arange(5)[:, None] < done, rows, 0)
  np.testing.assert_array_equal(out["doubled"], 2 * expected)
  np.testing.assert_array_equal(out["sum"], expected.sum(1))
