"""Tests that grouped convolutions of any function can be computed in another form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.channels import WithGroupsBy
from gatprune_jax.kernels.convolution import group_convolution
from gatprune_jax.models import eval_function, model, train_function
from gatprune_jax.networks import Network, fast_network
from tests.channels.test_equivalence import MobileBlock


def convolve(x, w, groups):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def network(v, x):
  inner = jax.jit(lambda x, w: jax.nn.relu(convolve(x, w, 4)))
  x = convolve(x, v["first"], 1)
  return {"out": convolve(inner(x, v["depthwise"]), v["grouped"], 2), "half": x / 2}


@pytest.fixture
def operands():
  rng = np.random.default_rng(0)
  shapes = {"first": (3, 3, 3, 4), "depthwise": (3, 3, 1, 4), "grouped": (1, 3, 2, 6)}
  variables = {
    name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
  }
  return variables, rng.standard_normal((2, 5, 6, 3)).astype(np.float32)


def assert_same_outputs_and_gradients(one, other, *args):
  both = []
  for fn in (one, other):
    loss = lambda *args, fn=fn: sum((leaf**2).sum() for leaf in jax.tree.leaves(fn(*args)))
    both.append(jax.jit(lambda *args, fn=fn, loss=loss: (fn(*args), jax.grad(loss)(*args)))(*args))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *both)


def test_only_groups_are_replaced_in_calls_too(operands):
  replaced = WithGroupsBy(network, group_convolution)
  assert_same_outputs_and_gradients(replaced, network, *operands)
  counts = [
    str(jax.make_jaxpr(fn)(*operands)).count("feature_group_count=1") for fn in (network, replaced)
  ]
  assert counts[1] > counts[0]  # the sets of the grouped convolution
  program = str(jax.make_jaxpr(replaced)(*operands))
  assert "feature_group_count=2" not in program
  assert "feature_group_count=4" not in program


def test_a_function_without_groups_is_called_as_it_is():
  calls = []

  def plain(w, x):
    calls.append(x)
    return convolve(x, w, 1)

  w, x = jnp.ones((1, 1, 2, 2)), jnp.ones((1, 2, 2, 2))
  replaced = WithGroupsBy(plain, group_convolution)
  assert str(jax.make_jaxpr(replaced)(w, x)) == str(jax.make_jaxpr(plain)(w, x))
  assert calls


def test_equal_objects_share_a_compiled_program(operands):
  traced = []

  def run(fn, *args):
    traced.append(fn)
    return fn(*args)

  compiled = jax.jit(run, static_argnums=0)
  for _ in range(2):
    compiled(WithGroupsBy(network, group_convolution), *operands)
  assert len(traced) == 1


def test_loops_keep_their_convolutions(operands):
  variables, x = operands
  grouped = variables["depthwise"]

  def loop(w, x):
    x = convolve(x, w, 4)
    return jax.lax.fori_loop(0, 2, lambda _, x: convolve(x, w, 4), x)

  x = jnp.concatenate([x, x[..., :1]], -1)
  replaced = WithGroupsBy(loop, group_convolution)
  np.testing.assert_allclose(replaced(grouped, x), loop(grouped, x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
  "make",
  [MobileBlock, pytest.param(lambda: model("mobilenet_v2", 5), marks=pytest.mark.long)],
  ids=["block", "mobilenet_v2"],
)
def test_a_fast_network_is_the_network(make):
  # In float64, because normalisation over four images makes much of differences in rounding.
  with jax.enable_x64(True):
    module = make()
    x = np.random.default_rng(0).standard_normal((4, 16, 16, 3))
    variables = jax.jit(module.init)(jax.random.key(0), x[:1])
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    dense = Network(eval_function(module), train_function(module), variables)
    fast = fast_network(dense)
    assert fast.trains == dense.trains
    for ours, theirs in ((fast.eval_fn, dense.eval_fn), (fast.train_fn, dense.train_fn)):
      found, expected = (jax.jit(fn)(variables, x) for fn in (ours, theirs))
      jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-8, atol=1e-8), found, expected
      )
