"""Tests of saved networks: any container of variables is read back or refused with a message."""

from typing import NamedTuple

from flax import nnx
from flax.core import FrozenDict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_same, random_mask
from tests.channels.test_frameworks import NnxNet, X

RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.standard_normal(shape).astype(np.float32)


class Weights(NamedTuple):
  first: jax.Array
  last: jax.Array


def reloaded(fn, variables, x, path):
  """Returns the compact network under a random mask, and the same network read from a file.

  Args:
    fn: a function of (variables, x).
    variables: its variables.
    x: a batch of inputs, `[B, ...]`.
    path: where the network is saved.
  """
  graph = gp.trace(fn, variables, x)
  small = gp.compact(graph, fn, variables, random_mask(graph, np.random.default_rng(1)))
  gp.save(path, small, x)
  loaded = gp.load(path)
  assert_same(loaded.apply(loaded.variables, x[:3]), small.apply(small.variables, x[:3]))
  return small, loaded


@pytest.mark.parametrize("container", [FrozenDict, lambda v: Weights(*v.values())])
def test_variables_of_other_containers_are_a_dict_by_path(container, tmp_path):
  fn = lambda v, x: jax.nn.relu(x @ jax.tree.leaves(v)[0]) @ jax.tree.leaves(v)[1]
  variables = container({"first": normal(3, 6), "last": normal(6, 2)})
  small, loaded = reloaded(fn, variables, normal(4, 3), tmp_path / "net")
  first, last = jax.tree.leaves(small.variables)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, {"first": first, "last": last})


def test_an_nnx_state_with_random_streams(tmp_path):
  definition, state = nnx.split(NnxNet(nnx.Rngs(0)))

  def fn(state, x):
    module = nnx.merge(definition, state)
    module.eval()
    return module(x)

  small, loaded = reloaded(fn, state, X, tmp_path / "net")
  np.testing.assert_array_equal(
    loaded.variables["conv1/kernel/value"], small.variables["conv1"]["kernel"].get_value()
  )
  keys = {name for name, leaf in loaded.variables.items() if leaf.dtype == np.uint32}
  assert keys >= {"dropout/rngs/key/value"}


def test_paths_may_coincide_and_have_any_name(tmp_path):
  names = (("a", "b/c"), ("a/b", "c"), ("allow_pickle", "file"))
  variables = {first: {second: normal(5, 5)} for first, second in names}

  def fn(v, x):
    for first, second in names:
      x = jnp.tanh(x @ v[first][second])
    return x[:, :1] @ jnp.ones((1, 2))

  small, loaded = reloaded(fn, variables, normal(4, 5), tmp_path / "net")
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, small.variables)


def test_containers_that_a_file_cannot_name_are_refused(tmp_path):
  fn = lambda v, x: Weights(*[jax.nn.relu(x @ v["first"]) @ v["last"]] * 2)
  variables = {"first": normal(3, 6), "last": normal(6, 2)}
  graph = gp.trace(fn, variables, normal(4, 3))
  small = gp.compact(graph, fn, variables, np.ones(6))
  with pytest.raises(gp.InputError, match="x and the outputs of a network that is saved must be"):
    gp.save(tmp_path / "net", small, normal(4, 3))
  assert list(tmp_path.iterdir()) == []


def test_what_needs_64_bits_says_so(tmp_path):
  with jax.enable_x64(True):
    fn = lambda v, x: jax.nn.relu(x @ v["first"]) @ v["last"]
    variables = {"first": normal(3, 6), "last": normal(6, 2).astype(np.float64)}
    _, loaded = reloaded(fn, variables, normal(4, 3), tmp_path / "net")
    assert loaded.variables["last"].dtype == np.float64
  with pytest.raises(gp.InputError, match=r"holds last as float64, .* set JAX_ENABLE_X64=1"):
    gp.load(tmp_path / "net")


def test_a_loaded_network_says_that_its_layers_cannot_be_seen(example_b, tmp_path):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  gp.save(
    tmp_path / "net", gp.compact(graph, e.eval_fn, e.variables, np.ones(graph.num_channels)), e.x
  )
  loaded = gp.load(tmp_path / "net")
  with pytest.raises(
    gp.InputError, match="a saved network that was loaded, whose layers cannot be"
  ):
    gp.trace(loaded.apply, loaded.variables, e.x)
