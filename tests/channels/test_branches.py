"""Tests of `cond`: without layers its branches carry channels, with layers it freezes them."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from tests.channels.rules.networks import around, assert_carries, assert_freezes
from tests.channels.rules.test_rules import check, weights


def test_a_switch_between_activations():
  choose = lambda x: jax.lax.switch(
    (x.sum() > 0).astype(int) + 1, [nn.relu, nn.tanh, lambda x: x * 0.5 - 1], x
  )
  assert_carries(choose)


def test_a_branch_that_moves_channels_ties_them():
  flip = lambda x: jax.lax.cond(x.sum() > 0, lambda x: x[..., ::-1], lambda x: x, x)
  graph = check(*around(flip))
  # Channels 0 and 3, and 1 and 2, are each other's after one of the branches.
  assert [len(group.channels) for group in graph.groups] == [2, 6]


def test_a_branch_that_takes_statistics_over_channels():
  centred = lambda x: x - x.mean(-1, keepdims=True)
  assert_carries(lambda x: jax.lax.cond(x.sum() > 0, centred, lambda x: x, x))


def test_a_branch_with_a_layer_freezes():
  matrix = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)
  layer = lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ matrix, lambda x: x, x)
  assert_freezes(layer, "chooses between programs that have layers")


def test_nothing_has_a_bypass_beside_a_branch_that_may_drop_the_signal():
  def fn(v, x):
    x = x @ v["a"]
    x = jax.lax.cond(x.sum() > 0, lambda x: x * 0, lambda x: x, x) + nn.relu(x @ v["b"]) @ v["c"]
    return x @ v["d"]

  x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
  graph = gp.trace(fn, weights(a=(3, 4), b=(4, 6), c=(6, 4), d=(4, 2)), x)
  assert {group.name: group.has_bypass for group in graph.groups} == {"a": False, "b": False}
