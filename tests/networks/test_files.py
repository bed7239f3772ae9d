"""Tests of networks that are saved and loaded to be trained, traced and pruned further."""

import dataclasses
import os
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.networks import compact_network
from tests.channels.laws import assert_same, random_mask
from tests.channels.test_frameworks import NnxNet


def cut(network, x, seed, keep=0.6):
  """Returns a network's graph, a random mask, and the network under it."""
  graph = gp.trace(network.eval_fn, network.variables, x)
  mask = random_mask(graph, np.random.default_rng(seed), keep)
  return graph, mask, compact_network(graph, network, mask)


def trained(network, x, y, steps=3):
  """Returns the variables after some steps of momentum."""
  optimizer = optax.sgd(0.05, momentum=0.9)

  def loss(params, state, x, y):
    outputs, state = network.forward_train(network.merge(params, state), x)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), state

  @jax.jit
  def step(params, state, moments):
    gradients, state = jax.grad(loss, has_aux=True)(params, state, x, y)
    updates, moments = optimizer.update(gradients, moments)
    return optax.apply_updates(params, updates), state, moments

  params, state = network.split(network.variables)
  moments = optimizer.init(params)
  for _ in range(steps):
    params, state, moments = step(params, state, moments)
  return network.merge(params, state)


def test_a_loaded_network_trains_as_the_saved_one(example, tmp_path):
  e = example
  _, _, small = cut(e.network, e.x, seed=0)
  gp.save(tmp_path / "net", small, e.x)
  loaded = gp.load(tmp_path / "net", trainable=True)
  assert loaded.trains == small.trains
  expected, found = trained(small, e.x, e.y), trained(loaded, e.x, e.y)
  jax.tree.map(lambda a, b: assert_same(a, b, 1e-4), found, expected)
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), expected, small.variables)
  assert min(jax.tree.leaves(moved)) > 1e-5
  for num in (1, 5):
    assert_same(loaded.eval_fn(found, e.x[:num]), small.eval_fn(expected, e.x[:num]), 1e-4)


def test_masks_compose(example, tmp_path):
  e = example
  graph, mask, small = cut(e.network, e.x, seed=1)
  gp.save(tmp_path / "one", small, e.x)
  loaded = gp.load(tmp_path / "one", trainable=True)
  graph_2, mask_2, smaller = cut(loaded, e.x, seed=2)
  assert graph_2.num_channels == mask.sum()
  gp.save(tmp_path / "two", smaller, e.x)
  last = gp.load(tmp_path / "two", trainable=True)

  both = last.origin.mask(graph)
  assert both.sum() == mask_2.sum()
  assert not (both & ~mask).any()
  at_once = gp.compact(graph, e.eval_fn, e.variables, both)
  jax.tree.map(np.testing.assert_array_equal, last.variables, at_once.variables)
  assert_same(last.eval_fn(last.variables, e.x), at_once.apply(at_once.variables, e.x))
  everything = np.ones(graph.num_channels)
  for name, cost in (("macs", gp.macs), ("params", gp.params)):
    assert last.origin.costs[name] == cost(graph, everything)
    assert cost(graph_2, mask_2) == cost(graph, both)
  with pytest.raises(gp.InputError, match="trace the network that was cut first"):
    last.origin.mask(graph_2)


def test_a_compact_network_trains_with_the_statistics_that_it_has(example_b, tmp_path):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = random_mask(graph, np.random.default_rng(3))
  small = gp.compact(graph, e.eval_fn, e.variables, mask)
  gp.save(tmp_path / "net", small, e.x)
  loaded = gp.load(tmp_path / "net", trainable=True)
  after = trained(loaded, e.x, e.y)
  jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], small.variables["batch_stats"])
  before = small.variables["params"]["stem"]["kernel"]
  assert not np.allclose(after["params"]["stem"]["kernel"], before)


def test_an_nnx_state_is_a_dict_by_path_and_knows_what_trains(tmp_path):
  x = np.random.default_rng(4).standard_normal((6, 8, 8, 3)).astype(np.float32)
  network = gp.from_nnx(NnxNet(nnx.Rngs(0)))
  graph, mask, small = cut(network, x, seed=5)
  gp.save(tmp_path / "net", small, x)
  loaded = gp.load(tmp_path / "net", trainable=True)
  assert_same(loaded.eval_fn(loaded.variables, x), small.eval_fn(small.variables, x))
  flags = dict(zip(sorted(loaded.variables), loaded.trains, strict=True))
  assert flags["conv1/kernel/value"]
  assert not any(flag for name, flag in flags.items() if "rngs" in name or "mean" in name)
  np.testing.assert_array_equal(loaded.origin.mask(relabelled(graph, loaded)), mask)


def relabelled(graph, loaded):
  """Returns a graph with its leaves in the order of a loaded network's."""
  order = {leaf.path: leaf for leaf in graph.leaves}
  leaves = tuple(order[path] for path in sorted(loaded.variables))
  return dataclasses.replace(graph, leaves=leaves)


def test_a_rule_of_its_own_keeps_its_derivative(tmp_path):
  @jax.custom_vjp
  def doubled(x):
    return jnp.tanh(x)

  # The rule returns twice the true derivative, so that it cannot be mistaken for another.
  doubled.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (2 * g * (1 - jnp.tanh(x) ** 2),))

  def fn(v, x):
    return jax.nn.relu(doubled(x @ v["a"])) @ v["b"]

  rng = np.random.default_rng(6)
  variables = {"a": rng.standard_normal((3, 5)), "b": rng.standard_normal((5, 2))}
  variables = jax.tree.map(jnp.float32, variables)
  x = np.concatenate([rng.standard_normal((4, 3)), np.zeros((1, 3))]).astype(np.float32)
  small = gp.compact(gp.trace(fn, variables, x), fn, variables, np.array([1, 0, 1, 1, 1]))
  gp.save(tmp_path / "net", small, x)
  loaded = gp.load(tmp_path / "net", trainable=True)
  gradient = lambda apply: jax.grad(lambda v: apply(v, x).sum())(small.variables)
  jax.tree.map(assert_same, gradient(loaded.eval_fn), gradient(small.apply))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (8, 8, 2)])
def test_inputs_of_another_form_are_refused(shape, example_b, tmp_path):
  e = example_b
  _, _, small = cut(e.network, e.x, seed=7)
  gp.save(tmp_path / "net", small, e.x)
  loaded = gp.load(tmp_path / "net", trainable=True)
  with pytest.raises(gp.InputError, match=r"saved for float32 values of shape \[batch, 8, 8, 2\]"):
    loaded.eval_fn(loaded.variables, np.zeros(shape, np.float32))
  with pytest.raises(gp.InputError, match="in another tree than the"):
    loaded.eval_fn(loaded.variables["params"], e.x)


def test_a_train_function_of_certain_batch_sizes_is_saved_to_run_only(two_layers, tmp_path):
  e = two_layers
  some = lambda v, x: e.train_fn(v, x) if x.shape[0] > 5 else e.train_fn(v, 2 * x)
  gp.save(tmp_path / "net", gp.Network(e.eval_fn, some, e.variables), e.x)
  loaded = gp.load(tmp_path / "net")
  assert_same(loaded.apply(loaded.variables, e.x), e.eval_fn(e.variables, e.x))
  with pytest.raises(gp.InputError, match=r"cannot be trained further: Symbolic dimension .*batch"):
    gp.load(tmp_path / "net", trainable=True)


WITHOUT_THE_CODE = """
import sys
import jax, numpy as np
import gatprune_jax as gp

x = np.load("x.npy")
loaded = gp.load("net")
again = gp.load("net", trainable=True)
graph = gp.trace(again.eval_fn, again.variables, x)
outputs, updated = jax.jit(again.train_fn)(again.variables, x)
np.savez("found.npz", eval=loaded.apply(loaded.variables, x), train=outputs, n=graph.num_channels)
models = [name for name in sys.modules if name.startswith(("tests", "gatprune_jax.models"))]
assert models == [], models
"""


OTHER = os.environ.get("GATPRUNE_OTHER_PYTHON")


@pytest.mark.parametrize(
  "python",
  [
    sys.executable,
    pytest.param(
      OTHER,
      marks=pytest.mark.skipif(
        OTHER is None,
        reason="set GATPRUNE_OTHER_PYTHON to the python of an environment that has another JAX, "
        "and this package installed",
      ),
    ),
  ],
)
def test_a_process_without_the_model_code_runs_and_traces_it(python, example_b, tmp_path):
  e = example_b
  _, mask, small = cut(e.network, e.x, seed=8)
  gp.save(tmp_path / "net", small, e.x)
  np.save(tmp_path / "x.npy", e.x)
  environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(gp.__file__))}
  if python == OTHER:
    # The flags are those that this environment's XLA accepts, and the path is that of its package.
    environment.pop("XLA_FLAGS", None)
    del environment["PYTHONPATH"]
  subprocess.run([python, "-c", WITHOUT_THE_CODE], cwd=tmp_path, env=environment, check=True)
  found = np.load(tmp_path / "found.npz")
  assert_same(found["eval"], small.eval_fn(small.variables, e.x))
  assert_same(found["train"], small.train_fn(small.variables, e.x)[0])
  assert found["n"] == mask.sum()
