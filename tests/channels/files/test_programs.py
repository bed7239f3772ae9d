"""Tests of recorded programs: every kind of equation evaluates to what was recorded."""

import json

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.channels.files.programs import record, run
from gatprune_jax.channels.files.values import NotRecordableError, decode, encode
from tests.channels.laws import assert_same

BATCH = export.symbolic_shape("batch")[0]
W = jnp.float32(np.random.default_rng(0).standard_normal((4, 4)))


def loops(w, x):
  x, _ = jax.lax.scan(lambda c, k: (jnp.tanh(c @ k), None), x, jnp.stack([w, 2 * w]))
  x = jax.lax.fori_loop(0, 3, lambda _, c: c * 0.5 + w.sum(), x)
  x = jax.lax.while_loop(lambda c: (c**2).sum() > 1, lambda c: c / 2, x)
  return jax.lax.cond(x.sum() > 0, lambda c: c + 1, lambda c: c @ w, x)


def indices(w, x):
  x = x.at[:, jnp.array([1, 3])].add(w[0, :2][None]).at[:, 0].set(2.0)
  order = jnp.argsort(x, axis=-1)
  return jnp.take_along_axis(x, order, axis=-1) + jnp.pad(x[:, 1:3], ((0, 0), (1, 1)))


def random(w, x):
  key = jax.random.fold_in(jax.random.wrap_key_data(jnp.array([1, 2], jnp.uint32)), 3)
  first, second = jax.random.split(key)
  seeded = jax.random.normal(jax.random.key(7), (4, 4)) + jax.random.key_data(second).sum()
  return x @ (w * jax.random.uniform(first, (4, 4)) + 1e-9 * seeded)


def sizes(w, x):
  whole = jnp.concatenate([x, x[:1]])
  spread = jnp.broadcast_to(whole[:, None], (x.shape[0] + 1, 3, 4)).reshape(-1, 4)
  return spread.sum(0, keepdims=True) / (x.shape[0] * 3 - 1) + x @ w


def rules(w, x):
  return jax.nn.softmax(jax.nn.gelu(jax.nn.relu(x @ w)) + jax.nn.silu(x), axis=-1)


def windows(w, x):
  image = (x @ w).reshape(-1, 2, 2, 1)
  pooled = jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, (1, 2, 1, 1), (1, 1, 1, 1), "SAME")
  return jax.lax.reduce(pooled, 0.0, jax.lax.add, (1, 2, 3))[:, None]


@pytest.mark.parametrize("fn", [loops, indices, random, sizes, rules, windows])
def test_a_program_computes_what_was_recorded(fn):
  spec = jax.ShapeDtypeStruct((BATCH, 4), jnp.float32)
  program = json.loads(json.dumps(record(fn, W, spec)))
  for batch in (1, 5):
    x = jnp.float32(np.random.default_rng(batch).standard_normal((batch, 4)))
    again = jax.jit(lambda w, x, n=batch: run(program, [w, x], n)[0])
    assert_same(again(W, x), jax.jit(fn)(W, x))
    if fn is not loops:  # a loop of unknown length has no reverse-mode derivative
      gradient = lambda f, x=x: jax.grad(lambda w: (f(w, x) ** 2).sum())(W)
      assert_same(gradient(again), gradient(fn))


@pytest.mark.parametrize(
  "of",
  [
    lambda n: 3 * n + 2,
    lambda n: (n - 1) // 2,
    lambda n: n % 4 * n,
    lambda n: n * n - n,
    lambda n: jax.numpy.zeros((n, 2))[1:].shape[0] * 5,
  ],
)
def test_sizes_are_polynomials_of_the_batch(of):
  shapes = []
  program = jax.jit(lambda x: shapes.append(of(x.shape[0])))
  export.export(program)(jax.ShapeDtypeStruct((BATCH,), jnp.float32))
  for batch in (1, 2, 7):
    assert decode(encode(shapes[0]), batch) == of(batch)
  with pytest.raises(ValueError, match="is no size"):
    decode({"dimension": "__import__('os')"}, 2)


def test_what_cannot_be_written_down_is_named():
  spec = jax.ShapeDtypeStruct((2, 4), jnp.float32)

  def fn(x):
    return jax.pure_callback(np.sin, spec, x, vmap_method="sequential")

  with pytest.raises(NotRecordableError, match="`pure_callback`, which"):
    record(fn, spec)
