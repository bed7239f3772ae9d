"""Tests of networks in NNX, Equinox and plain jax.numpy; the other tests use Linen."""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import parameter_flags
from tests.channels.laws import assert_costs, assert_law, random_mask

X = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)


class NnxNet(nnx.Module):
  def __init__(self, rngs):
    self.conv1 = nnx.Conv(3, 6, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(6, rngs=rngs)
    self.dropout = nnx.Dropout(0.3, rngs=rngs)
    self.conv2 = nnx.Conv(6, 5, (3, 3), rngs=rngs)
    self.head = nnx.Linear(5, 2, rngs=rngs)

  def __call__(self, x):
    x = self.dropout(nnx.relu(self.norm(self.conv1(x))))
    return self.head(nnx.relu(self.conv2(x)).mean((1, 2)))


def test_nnx_through_split_and_merge():
  definition, state = nnx.split(NnxNet(nnx.Rngs(0)))

  def eval_fn(state, x):
    module = nnx.merge(definition, state)
    module.eval()
    return module(x)

  def train_fn(state, x):
    module = nnx.merge(definition, state)
    module.train()
    logits = module(x)
    return logits, nnx.state(module)

  graph = gp.trace(eval_fn, state, X)
  assert [len(group.channels) for group in graph.groups] == [6, 5]
  mask = random_mask(graph, np.random.default_rng(1))
  small = assert_law(graph, eval_fn, state, mask, X)
  assert_law(graph, train_fn, state, mask, X)
  assert_costs(graph, small, mask, X)
  # By hand, the parameters are two convolutions, scale and bias of the norm, and the head. Running
  # statistics and random streams are no parameters.
  weights = 9 * 3 * 6 + 6 + 2 * 6 + 9 * 6 * 5 + 5 + 5 * 2 + 2
  assert gp.params(graph, np.ones(graph.num_channels)) == weights
  # A plain tree does not say what its arrays are for, but running statistics are known by name.
  plain = nnx.to_pure_dict(state)
  sizes = [leaf.size for leaf in jax.tree.leaves(plain)]
  assert sum(itertools.compress(sizes, parameter_flags(plain))) == weights
  # The compact state can be merged into a module again.
  assert nnx.merge(definition, small.variables).conv1.kernel.shape[-1] == mask[:6].sum()


def test_equinox():
  eqx = pytest.importorskip("equinox")

  class Net(eqx.Module):
    conv1: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    head: eqx.nn.Linear

    def __init__(self, key):
      keys = jax.random.split(key, 3)
      self.conv1 = eqx.nn.Conv2d(3, 6, 3, padding=1, key=keys[0])
      self.norm = eqx.nn.GroupNorm(6, 6, eps=0.1)
      self.conv2 = eqx.nn.Conv2d(6, 5, 3, key=keys[1])
      self.pool = eqx.nn.MaxPool2d(2, 2)
      self.head = eqx.nn.Linear(5 * 9, 2, key=keys[2])

    def __call__(self, x):  # [C, H, W]
      x = self.conv2(jax.nn.relu(self.norm(self.conv1(x))))
      return self.head(jax.nn.relu(self.pool(x)).reshape(-1))

  arrays, static = eqx.partition(Net(jax.random.key(0)), eqx.is_array)
  fn = lambda arrays, x: jax.vmap(eqx.combine(arrays, static))(x)
  x = X.transpose(0, 3, 1, 2)
  graph = gp.trace(fn, arrays, x)
  assert [len(group.channels) for group in graph.groups] == [6, 5]
  mask = random_mask(graph, np.random.default_rng(2))
  assert_costs(graph, assert_law(graph, fn, arrays, mask, x), mask, x)


def test_the_arrays_of_an_equinox_state_are_no_parameters():
  eqx = pytest.importorskip("equinox")

  class Net(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
      keys = jax.random.split(key)
      self.conv = eqx.nn.Conv2d(3, 5, 3, key=keys[0])
      self.norm = eqx.nn.BatchNorm(5, "batch", mode="ema")
      self.head = eqx.nn.Linear(5, 2, key=keys[1])

    def __call__(self, x, state):
      x, state = self.norm(self.conv(x), state)
      return self.head(jax.nn.relu(x).mean((1, 2))), state

  model, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
  arrays, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)
  over_batch = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}
  fn = lambda v, x: jax.vmap(eqx.combine(v[0], static), **over_batch)(x, v[1])[0]
  graph = gp.trace(fn, (arrays, state), X.transpose(0, 3, 1, 2))
  weights = (27 * 5 + 5) + 2 * 5 + (5 * 2 + 2)
  assert gp.params(graph, np.ones(graph.num_channels)) == weights


def test_plain_functions_over_lists():
  def fn(v, x):
    y = x
    for kernel, gain in v[:-1]:
      y = jax.lax.conv_general_dilated(
        y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
      )
      y = jnp.tanh(y * gain[None, None, None])
    return jnp.einsum("bhwc,cd->bd", y, v[-1])

  normal = np.random.default_rng(3).standard_normal
  variables = [(normal((3, 3, i, o)), normal(o)) for i, o in ((3, 4), (4, 5))] + [normal((5, 2))]
  graph = gp.trace(fn, variables, X)
  assert [group.members for group in graph.groups] == [
    (("0/0", 3), ("0/1", 0), ("1/0", 2)),
    (("1/0", 3), ("1/1", 0), ("2", 0)),
  ]
  mask = random_mask(graph, np.random.default_rng(4))
  assert_law(graph, fn, variables, mask, X)


@pytest.mark.parametrize(
  "optimizer", [optax.adam(1e-3), optax.chain(optax.sgd(0.1, momentum=0.9), optax.ema(0.9))]
)
def test_optimiser_state_is_cut_like_the_variables(example, optimizer):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  mask = random_mask(graph, np.random.default_rng(5))
  params = example.variables["params"]
  gradients = jax.tree.map(lambda p: p + 1, params)
  _, state = optimizer.update(gradients, optimizer.init(params))
  small = gp.compact(graph, example.eval_fn, example.variables, mask).variables["params"]
  cut = gp.compact_state(graph, state, mask)
  # Updating the state with cut gradients must equal cutting the state that was updated with whole
  # gradients.
  _, expected = optimizer.update(jax.tree.map(lambda p: p + 1, small), optimizer.init(small))
  jax.tree.map(np.testing.assert_allclose, cut, expected)


def test_optimiser_state_of_other_shapes_is_refused(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  state = {"rows": {"stem": {"kernel": np.zeros((3, 3))}}, "count": np.zeros(()), "other": [1, 2]}
  mask = np.ones(graph.num_channels)
  with pytest.raises(gp.InputError, match=r"rows/stem/kernel has shape \(3, 3\), but variable"):
    gp.compact_state(graph, state, mask)


def test_state_is_cut_like_the_variable_of_its_whole_path():
  fn = lambda v, x: jax.nn.relu(jax.nn.relu(x @ v["b"]["w"]) @ v["w"]) @ v["z"]
  shapes = {"b": {"w": (4, 8)}, "w": (8, 8), "z": (8, 2)}
  variables = jax.tree.map(np.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
  graph = gp.trace(fn, variables, np.ones((1, 4)))
  mask = np.repeat([1, 0, 1, 0], [3, 5, 6, 2])  # keeps 3 of 8 channels of b/w, 6 of 8 of w
  cut = gp.compact_state(graph, {"mu": variables, "ema": {"z": variables["z"]}}, mask)
  shapes_cut = {"b": {"w": (4, 3)}, "w": (3, 6), "z": (6, 2)}
  assert jax.tree.map(np.shape, cut) == {"mu": shapes_cut, "ema": {"z": (6, 2)}}


def test_batch_statistics_are_cut_without_their_collection(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  mask = random_mask(graph, np.random.default_rng(6))
  small = gp.compact(graph, example_b.eval_fn, example_b.variables, mask)
  cut = gp.compact_state(graph, {"ema": example_b.variables["batch_stats"]}, mask)
  jax.tree.map(np.testing.assert_array_equal, cut["ema"], small.variables["batch_stats"])


def test_a_path_that_ends_two_variables_is_refused():
  fn = lambda v, x: jax.nn.relu(x @ v["a"]["w"]) @ v["b"]["w"]
  variables = {"a": {"w": np.ones((3, 4))}, "b": {"w": np.ones((4, 3))}}
  graph = gp.trace(fn, variables, np.ones((1, 3)))
  with pytest.raises(gp.InputError, match="mu/w may belong to a/w or to b/w"):
    gp.compact_state(graph, {"mu": {"w": np.ones((3, 4))}}, np.ones(4))
