"""Tests of loops: blocks of one form, recurrent networks, and values refined until they settle."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_costs, assert_law, assert_same, random_mask
from tests.channels.rules.networks import CHANNELS, around, assert_freezes
from tests.channels.rules.test_rules import check, indices, weights
from tests.conftest import perturbed

SERIES = (
  np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
)  # [B, time, features]


def widths(graph):
  return [len(group.channels) for group in graph.groups]


def test_blocks_of_one_form_lose_the_same_channels():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      hidden = nn.relu(nn.Dense(5, name="up")(nn.LayerNorm()(x)))
      return x + nn.Dense(6, name="down")(hidden), x.mean((1, 2))

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
      x, means = stack(name="blocks")(nn.Dense(6, name="stem")(x), None)
      return nn.Dense(2, name="head")(x.mean(1)) * means.mean()

  net = Net()
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), SERIES))
  graph = check(net.apply, variables, x=SERIES)
  assert widths(graph) == [6, 5]
  # The first axis is that of the blocks.
  assert [indices(graph, "params/blocks/up/kernel", axis) for axis in range(3)] == [
    [-1] * 3, [0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10],
  ]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [nn.SimpleCell, nn.GRUCell, nn.LSTMCell])
def test_hidden_units_of_recurrent_networks(cell, reverse):
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.RNN(cell(6, name="cell"), reverse=reverse)(nn.Dense(5, name="in")(x))
      return nn.Dense(2, name="head")(x[:, -1])

  net = Net()
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), SERIES))
  graph = gp.trace(net.apply, variables, SERIES)
  assert sorted(widths(graph)) == [5, 6]
  for seed in range(2):
    mask = random_mask(graph, np.random.default_rng(seed))
    small = assert_law(graph, net.apply, variables, mask, SERIES)
    assert_costs(graph, small, mask, SERIES)
  gradient = jax.jit(jax.grad(lambda v: (small.apply(v, SERIES) ** 2).sum()))(small.variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_gradients_of_masked_loops_are_those_of_compact_ones():
  def fn(v, x):
    step = lambda h, row: (jnp.tanh(row @ v["in"] + h @ v["state"]), h)
    last, states = jax.lax.scan(step, jnp.zeros((len(x), 5)), x.swapaxes(0, 1))
    return last @ v["out"] + jnp.einsum("tbh,ho->bo", states, v["out"])

  variables = weights(**{"in": (4, 5), "state": (5, 5), "out": (5, 2)})
  graph = check(fn, variables, x=SERIES)
  assert widths(graph) == [5]
  mask = np.array([1, 0, 1, 1, 0], bool)
  small = gp.compact(graph, fn, variables, mask)
  loss = lambda run, v: (run(v) ** 2).sum()
  own = jax.grad(lambda v: loss(lambda v: small.apply(v, SERIES), v))(small.variables)
  masked = jax.grad(lambda v: loss(lambda v: gp.masked(graph, fn)(v, mask, SERIES), v))(variables)
  np.testing.assert_allclose(
    own["state"], masked["state"][np.ix_(mask, mask)], rtol=1e-4, atol=1e-4
  )


def test_a_state_that_starts_without_channels_freezes_those_that_it_takes_up():
  # The state starts as the input, which has no channels.
  def fn(v, x):
    step = lambda h, _: (x[:, 0] @ v["a"], ())
    state, _ = jax.lax.scan(step, x[:, 1], None, length=2)
    return nn.relu(state @ v["b"]) @ v["c"]

  graph = check(fn, weights(a=(4, 4), b=(4, 5), c=(5, 2)), x=SERIES)
  assert [group.name for group in graph.groups] == ["b"]
  assert "state of a `scan` that has channels in some iterations only" in graph.frozen["a"]


def test_channels_of_a_walked_axis_and_of_a_split_one_are_frozen():
  def walked(v, x):
    out, _ = jax.lax.scan(lambda s, row: (s + row, ()), jnp.zeros(len(x)), (x[:, 0] @ v["a"]).T)
    return out[:, None] * nn.relu(x[:, 1] @ v["b"]) @ v["c"]

  graph = check(walked, weights(a=(4, 3), b=(4, 5), c=(5, 2)), x=SERIES)
  assert "walked along by `scan`" in graph.frozen["a"]

  def split(v, x):
    halves = (x[:, 0] @ v["a"]).reshape(len(x), 2, 3)
    out, _ = jax.lax.scan(lambda s, _: (jnp.sin(s), ()), halves, None, length=2)
    return nn.relu(out.reshape(len(x), 6) @ v["b"]) @ v["c"]

  graph = check(split, weights(a=(4, 6), b=(6, 5), c=(5, 2)), x=SERIES)
  assert "split over several axes in a `scan`" in graph.frozen["a"]


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_a_signal_that_arrives_some_iterations_later_is_seen(delay):
  # The output holds what the state took up that many iterations before.
  def fn(v, x):
    step = lambda state, _: ((nn.relu(x[:, 0] @ v["a"]) @ v["b"], *state[:-1]), ())
    zeros = (jnp.zeros((len(x), 5)),) * (delay + 1)
    state, _ = jax.lax.scan(step, zeros, None, length=delay + 2)
    return state[-1] @ v["c"]

  graph = check(fn, weights(a=(4, 6), b=(6, 5), c=(5, 2)), x=SERIES)
  assert [group.has_bypass for group in graph.groups] == [False, False]


def test_networks_with_loops_are_compensated_outside_of_them():
  def fn(v, x):
    h = nn.relu(x[:, 0] @ v["a"]) @ v["b"]
    step = lambda h, kernel: (nn.relu(h @ kernel), ())
    return jax.lax.scan(step, h, v["kernels"])[0] @ v["c"]

  variables = weights(a=(4, 6), b=(6, 5), kernels=(3, 5, 5), c=(5, 2))
  graph = check(fn, variables, x=SERIES)
  mask = random_mask(graph, np.random.default_rng(0))
  after = gp.compensate(graph, fn, variables, mask, SERIES)
  np.testing.assert_array_equal(after["kernels"], variables["kernels"])
  assert np.abs(after["b"] - variables["b"]).max() > 1e-3


def count_down(body, steps):
  """Returns a function that repeats a body of one value by `while`, a fixed number of times."""

  def repeat(x):
    return jax.lax.while_loop(
      lambda state: state[0] < steps, lambda state: (state[0] + 1, body(state[1])), (0, x)
    )[1]

  return repeat


def test_a_while_with_layers_loses_the_same_channels_in_every_iteration():
  def fn(v, x):
    block = lambda h: h + nn.relu(h @ v["up"]) @ v["down"]
    return count_down(block, 3)(x[:, 0] @ v["stem"]) @ v["head"]

  graph = check(fn, weights(stem=(4, 6), up=(6, 5), down=(5, 6), head=(6, 2)), x=SERIES)
  assert widths(graph) == [6, 5]
  # How often the loop is run is not known, so its layers count once.
  assert gp.macs(graph, np.ones(11)) == 4 * 6 + 2 * 6 * 5 + 6 * 2
  assert not any(group.has_bypass for group in graph.groups)


@pytest.mark.parametrize(
  "body", [nn.tanh, lambda h: h - h.mean(-1, keepdims=True), lambda h: h[..., ::-1]]
)
def test_a_while_carries_channels_through_its_state(body):
  channels = CHANNELS[0] // 2 if body(jnp.arange(3.0))[0] == 2 else CHANNELS[0]
  graph = check(*around(count_down(body, 3)))
  assert widths(graph) == [channels, CHANNELS[1]]


def test_channels_that_the_condition_of_a_while_reads_are_frozen():
  settle = lambda x: jax.lax.while_loop(lambda h: (h**2).sum() > 1, lambda h: h / 2, x)
  assert_freezes(settle, "read by the condition of a `while`")

  # The residual of an iteration is read, and what the residual was made from.
  def fixed_point(v, x):
    def step(state):
      h, _ = state
      new = jnp.tanh(x[:, 0] @ v["in"] + 0.1 * h @ v["state"])
      return new, jnp.abs(new - h).max()

    start = (jnp.zeros((len(x), 5)), jnp.inf)
    h, _ = jax.lax.while_loop(lambda state: state[1] > 1e-3, step, start)
    return h @ v["out"]

  graph = check(fixed_point, weights(**{"in": (4, 5), "state": (5, 5), "out": (5, 2)}), x=SERIES)
  assert widths(graph) == [5]


def test_a_while_with_a_layer_in_its_condition_freezes():
  matrix = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)
  settle = lambda x: jax.lax.while_loop(lambda h: (h @ matrix).max() > 1, lambda h: h / 2, x)
  assert_freezes(settle, "repeats a program as long as a condition with layers demands")


def test_a_while_whose_state_takes_up_channels_freezes_them():
  def fn(v, x):
    state = count_down(lambda _: x[:, 0] @ v["a"], 2)(x[:, 1])
    return nn.relu(state @ v["b"]) @ v["c"]

  graph = check(fn, weights(a=(4, 4), b=(4, 5), c=(5, 2)), x=SERIES)
  assert [group.name for group in graph.groups] == ["b"]
  assert "state of a `while` that has channels in some iterations only" in graph.frozen["a"]


def test_networks_with_a_while_are_saved_and_compensated(tmp_path):
  def fn(v, x):
    h = nn.relu(x[:, 0] @ v["a"]) @ v["b"]
    return count_down(lambda h: nn.relu(h @ v["kernel"]), 3)(h) @ v["c"]

  variables = weights(a=(4, 6), b=(6, 5), kernel=(5, 5), c=(5, 2))
  graph = check(fn, variables, x=SERIES)
  small = gp.compact(graph, fn, variables, random_mask(graph, np.random.default_rng(1)))
  gp.save(tmp_path / "net", small, SERIES)
  loaded = gp.load(tmp_path / "net")
  assert_same(loaded.apply(loaded.variables, SERIES), small.apply(small.variables, SERIES))
  after = gp.compensate(graph, fn, variables, np.arange(11) % 2, SERIES)
  np.testing.assert_array_equal(after["kernel"], variables["kernel"])
