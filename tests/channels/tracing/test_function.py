"""Tests that functions which cannot be traced are refused with a helpful message."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp

VARIABLES = {"a": np.ones((3, 4), np.float32), "b": np.ones((4, 2), np.float32)}
X = np.ones((2, 3), np.float32)


def model(v, x):
  return nn.relu(x @ v["a"]) @ v["b"]


def refused(fn, message, variables=VARIABLES, x=X):
  assert issubclass(gp.InputError, ValueError)
  with pytest.raises(ValueError, match=message):
    gp.trace(fn, variables, x)


def test_a_counter_outside_the_function():
  calls = []

  def fn(v, x):
    calls.append(1)
    return model(v, x) * len(calls)

  refused(fn, "depends on Python side effects: called twice")


def test_random_numbers_of_numpy():
  rng = np.random.default_rng(0)
  fn = lambda v, x: model({**v, "a": v["a"] + rng.standard_normal((3, 4))}, x)
  refused(fn, "depends on Python side effects: called twice")


def test_an_array_remembered_from_an_earlier_call():
  seen = []

  def fn(v, x):
    seen.append(model(v, x))
    return seen[0]

  refused(fn, "depends on Python side effects: called twice")


def test_a_gather_that_fills_with_nan_is_pure():
  index = np.array([0, 1, 2, 3, 0])
  fn = lambda v, x: x @ jnp.take(v["a"], index, axis=1, fill_value=np.nan) @ v["c"] @ v["d"]
  variables = {"a": VARIABLES["a"], "c": np.ones((5, 2)), "d": np.ones((2, 2))}
  assert gp.trace(fn, variables, X).num_channels > 0


def test_a_branch_on_a_value():
  refused(lambda v, x: model(v, x) if x.sum() > 0 else x, "on array values in Python")
  refused(lambda v, x: jnp.asarray(np.asarray(x) @ v["a"]), "on array values in Python")


def test_variables_in_second_place():
  refused(lambda x, v: model(v, x), r"not the first argument of apply_fn.*lambda variables, x")
  with pytest.raises(gp.InputError, match="not the first argument"):
    gp.trace(model, X, VARIABLES)


def test_the_function_fails():
  refused(model, r"apply_fn\(variables, x\) fails with TypeError: dot_general", x=np.ones((2, 5)))
  refused(lambda v, x: "text", "fails with TypeError")


def test_integer_weights_are_refused_and_integer_counters_are_not():
  integers = {**VARIABLES, "a": np.ones((3, 4), np.int8)}
  fn = lambda v, x: nn.relu(x @ v["a"].astype(jnp.float32)) @ v["b"]
  refused(fn, "variable a holds int8 values and is used as the weights", integers)
  counted = {**VARIABLES, "steps": np.zeros((), np.int32)}
  assert gp.trace(model, counted, X).num_channels == 4


def test_what_differs_only_by_functions_made_anew_is_one_program():
  def fn(v, x):
    own = jax.custom_jvp(lambda h: jnp.maximum(h, 0))
    own.defjvp(lambda h, t: (jnp.maximum(h[0], 0), t[0]))
    return own(jax.checkpoint(lambda h: h @ v["a"])(x)) @ v["b"]

  key = jax.random.key(0)
  noisy = lambda v, x: fn(v, x + jax.random.normal(key, x.shape))
  assert gp.trace(fn, VARIABLES, X).num_channels == 4
  assert gp.trace(noisy, VARIABLES, X).num_channels == 4


@pytest.mark.parametrize(
  ("args", "keywords", "given"),
  [
    ((), {"train": False}, "train=False"),
    ((False,), {}, "False"),
    (({"mode": "eval"},), {}, "'eval'"),
  ],
)
def test_flags_and_keywords_are_refused_where_a_network_is_called(args, keywords, given, example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = np.ones(graph.num_channels)
  small = gp.compact(graph, e.eval_fn, e.variables, mask)
  for call in (
    lambda: gp.masked(graph, e.eval_fn)(e.variables, mask, e.x, *args, **keywords),
    lambda: small.apply(small.variables, e.x, *args, **keywords),
  ):
    with pytest.raises(gp.InputError, match=f"called with {given}, but it takes arrays alone"):
      call()
