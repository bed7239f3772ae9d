"""Tests of statistics over channels against networks that are built narrow by hand."""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import align
from tests.channels.laws import assert_law, assert_same, random_mask
from tests.channels.rules.test_rules import check, indices
from tests.conftest import perturbed

X = np.random.default_rng(0).standard_normal((3, 5, 5, 3)).astype(np.float32)


class GlobalResponse(nn.Module):
  """The global response normalisation of ConvNeXt V2 (arXiv 2301.00808, equations 1 and 2)."""

  @nn.compact
  def __call__(self, x):
    response = jnp.sqrt((x**2).sum((1, 2), keepdims=True))
    gain = self.param("gain", nn.initializers.normal(1.0), (x.shape[-1],))
    return gain[None, None, None] * (x * response / (response.mean(-1, keepdims=True) + 1e-6)) + x


class Softmax(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * nn.softmax(x, axis=-1)


class Largest(nn.Module):
  """Divides by the largest channel, and adds the smallest; integers and bools are reduced too."""

  @nn.compact
  def __call__(self, x):
    positive = (x > 0).all(-1, keepdims=True) | (x > 1).any(-1, keepdims=True)
    whole = (10 * x).astype(jnp.int32).max(-1, keepdims=True)
    largest, smallest = x.max(-1, keepdims=True), x.min(-1, keepdims=True)
    return x / (1 + largest**2) + smallest + positive + whole


NORMS = {
  "layer norm": functools.partial(nn.LayerNorm, epsilon=0.1),
  "slow variance": functools.partial(nn.LayerNorm, epsilon=0.1, use_fast_variance=False),
  "over space too": functools.partial(nn.LayerNorm, epsilon=0.1, reduction_axes=(1, 2, 3)),
  "rms norm": functools.partial(nn.RMSNorm, epsilon=0.1),
  "global response norm": GlobalResponse,
  "softmax": Softmax,
  "largest": Largest,
}


class Net(nn.Module):
  norm: Callable[[], nn.Module]
  widths: tuple[int, int] = (6, 5)

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(self.widths[0], (3, 3), name="a")(x)
    x = self.norm()(x)
    x = nn.relu(nn.Conv(self.widths[1], (3, 3), name="b")(x))
    return nn.Dense(2, name="c")(x.mean((1, 2)))


@pytest.mark.parametrize("name", list(NORMS))
def test_statistics_are_those_of_the_network_that_one_would_have_built(name):
  net = Net(NORMS[name])
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), X))
  graph = gp.trace(net.apply, variables, X)
  assert [len(group.channels) for group in graph.groups] == [6, 5]
  mask = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1], bool)
  small = assert_law(graph, net.apply, variables, mask, X)
  narrow = Net(NORMS[name], (3, 3))
  shapes = jax.tree.map(np.shape, jax.jit(narrow.init)(jax.random.key(0), X))
  assert jax.tree.map(np.shape, small.variables) == shapes
  ours, built = (jax.jit(fn)(small.variables, X) for fn in (small.apply, narrow.apply))
  assert_same(ours, built, 1e-6)


@pytest.mark.parametrize("groups", [2, 6])
def test_group_norm_loses_the_same_channels_of_each_group_or_whole_groups(groups):
  net = Net(functools.partial(nn.GroupNorm, groups, epsilon=0.1), (12, 5))
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), X))
  graph = check(net.apply, variables, x=X)
  expected = [*range(6)] * 2 if groups == 2 else np.repeat(np.arange(6), 2).tolist()
  assert indices(graph, "params/a/kernel", 3) == expected


def test_a_count_that_is_not_that_of_the_elements_stays():
  # The divisor n - 1 of a variance is not recognised, so it stays that of the dense network.
  fn = lambda v, x: (x @ v["a"] / jnp.var(x @ v["a"], axis=-1, ddof=1, keepdims=True)) @ v["b"]
  rng = np.random.default_rng(0)
  variables = {name: rng.standard_normal(s) for name, s in (("a", (3, 6)), ("b", (6, 2)))}
  x = rng.standard_normal((4, 3))
  graph = gp.trace(fn, variables, x)
  mask = np.arange(6) < 4
  small = assert_law(graph, fn, variables, mask, x)
  h = x @ variables["a"][:, :4]
  # The deviations are from the mean over the four; their squares are divided by 6 - 1.
  variance = ((h - h.mean(-1, keepdims=True)) ** 2).sum(-1, keepdims=True) / 5
  assert_same(small.apply(small.variables, x), h / variance @ variables["b"][:4])
  assert graph.fixed_divisors == {"a": (5.0,)}
  assert "divided by a number that stays as it is: a (by 5)." in gp.describe(graph)


def test_a_weight_penalty_is_that_of_what_is_kept():
  fn = lambda v, x: (jnp.tanh(x @ v["a"]) @ v["b"]).sum(-1) + 0.1 * (v["a"] ** 2).mean()
  rng = np.random.default_rng(0)
  variables = {name: rng.standard_normal(s) for name, s in (("a", (3, 6)), ("b", (6, 2)))}
  x, mask = rng.standard_normal((4, 3)), np.arange(6) % 2 == 0
  graph = gp.trace(fn, variables, x)
  small = assert_law(graph, fn, variables, mask, x)
  a, b = variables["a"][:, ::2], variables["b"][::2]
  assert graph.fixed_divisors == {}
  expected = (np.tanh(x @ a) @ b).sum(-1) + 0.1 * (a**2).mean()
  assert_same(small.apply(small.variables, x), expected)


def test_an_infinite_value_of_a_removed_channel_is_not_seen():
  # The removed channel's exponential overflows, because its logit is far above all others.
  fn = lambda v, x: nn.softmax(x @ v["a"]) @ v["b"]
  variables = {"a": np.array([[1.0, 2.0, 500.0]]), "b": np.ones((3, 2))}
  x = np.ones((1, 1))
  graph = gp.trace(fn, variables, x)
  small = assert_law(graph, fn, variables, np.array([1, 1, 0]), x)
  np.testing.assert_allclose(small.apply(small.variables, x), np.ones((1, 2)), rtol=1e-6)


def test_an_index_of_a_channel_freezes():
  fn = lambda v, x: jnp.take(x, (x @ v["a"]).argmax(-1) % 3, axis=-1) @ v["b"]
  with pytest.raises(gp.InputError, match="a: statistics over channels by `argmax`"):
    gp.trace(fn, {"a": np.ones((3, 4)), "b": np.ones((2, 2))}, np.ones((2, 3)))


def test_a_normed_group_has_no_bypass():
  # Without its hidden channels the branch has no statistics, so it cannot be removed whole.
  def fn(v, x, norm=True):
    hidden = nn.relu(x @ v["stem"]) @ v["up"]
    hidden = hidden / jnp.sqrt((hidden**2).mean(-1, keepdims=True) + 0.1) if norm else hidden
    return (nn.relu(x @ v["stem"]) + hidden @ v["down"]) @ v["head"]

  shapes = {"stem": (3, 4), "up": (4, 5), "down": (5, 4), "head": (4, 2)}
  rng = np.random.default_rng(0)
  variables = {name: rng.standard_normal(s) for name, s in shapes.items()}
  x = rng.standard_normal((2, 3))
  bypassed = lambda fn: [g.name for g in gp.trace(fn, variables, x).groups if g.has_bypass]
  assert bypassed(fn) == []
  assert bypassed(lambda v, x: fn(v, x, norm=False)) == ["up"]


@pytest.mark.parametrize("name", ["layer norm", "softmax"])
def test_networks_of_one_shape_take_statistics_over_their_own_channels(name):
  net = Net(NORMS[name])
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), X))
  graph = gp.trace(net.apply, variables, X)
  rng = np.random.default_rng(3)
  masks = np.stack([random_mask(graph, rng) for _ in range(3)])
  aligned = align(graph, net.apply, masks, variables, X)
  own = aligned.cut(variables)
  for index, mask in enumerate(masks):
    expected = gp.masked(graph, net.apply)(variables, mask, X)
    one = jax.tree.map(lambda leaf, i=index: leaf[i], own)
    assert_same(aligned.apply(index, one, X), expected)
