"""Tests of operations that make, join and repeat axes."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.rules.networks import SHAPE, assert_carries, assert_freezes
from tests.channels.rules.test_rules import X, check, conv, indices, weights


@pytest.mark.parametrize("axis", [0, 3])
def test_stacked_branches_are_tied(axis):
  def fn(v, x):
    y = jnp.stack([conv(x, v["a"]), conv(x, v["b"])], axis)
    weight = nn.softmax(y, axis)
    return (y * weight).sum(axis).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 4), b=(1, 1, 3, 4), c=(4, 2)))
  assert indices(graph, "a", 3) == indices(graph, "b", 3) == [0, 1, 2, 3]


def test_stacked_channels_are_frozen_where_they_are_taken_apart():
  assert_carries(lambda y: jnp.stack(jnp.unstack(y, axis=1), axis=1))
  assert_freezes(lambda y: jnp.stack(jnp.unstack(y, axis=3), axis=3), "selected alone")


@pytest.mark.parametrize("tiles", [1, 3])
def test_tiled_channels_are_each_read_as_often_as_they_are_repeated(tiles):
  graph = assert_carries(lambda y: jnp.tile(y, (1, 1, 2, tiles)), width=4 * tiles)
  assert indices(graph, "b", 2) == [0, 1, 2, 3] * tiles


def test_repeated_channels_are_each_read_as_often_as_they_are_repeated():
  graph = assert_carries(lambda y: jnp.repeat(y, 2, axis=-1), width=8)
  assert indices(graph, "b", 2) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_copies_that_meet_channels_are_channels():
  # The same value fills every channel, and goes with them.
  fn = lambda v, x: nn.relu(x.mean() * jnp.ones((1, 4)) + x @ v["a"]) @ v["b"]
  variables = weights(a=(3, 4), b=(4, 2))
  graph = check(fn, variables, x=np.ones((2, 3), np.float32))
  assert [len(group.channels) for group in graph.groups] == [4]


def test_a_reshape_that_transposes_first():
  permuted = lambda y: jax.lax.reshape(y, (SHAPE[0], 4, 36), dimensions=(0, 3, 1, 2))
  assert_carries(lambda y: permuted(y).reshape(SHAPE[0], 4, 6, 6).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("token_axis", [0, 1])
def test_a_class_token_beside_patches_freezes_no_layer_of_the_tokens(token_axis):
  def fn(v, x):
    patches = conv(x, v["a"]).reshape(len(x), -1, 4)
    token = jnp.broadcast_to(v["token"].reshape((1, 1, 4)), (len(x), 1, 4))
    tokens = jnp.concatenate([token, patches][:: 1 - 2 * token_axis], axis=1)
    tokens += nn.relu(tokens @ v["up"]) @ v["down"]
    return tokens.mean(1) @ v["b"]

  shapes = {"a": (1, 1, 3, 4), "token": (4,), "up": (4, 5), "down": (5, 4), "b": (4, 2)}
  graph = check(fn, weights(**shapes))
  assert [len(group.channels) for group in graph.groups] == [4, 5]
  assert indices(graph, "token", 0) == [0, 1, 2, 3]


def test_an_image_beside_a_single_channel_keeps_its_channels():
  # The first layer has one channel. The image is joined to it along the channels.
  fn = lambda v, x: (
    nn.relu(conv(jnp.concatenate([conv(x, v["a"]), x], -1), v["b"])).mean((1, 2)) @ v["c"]
  )
  graph = gp.trace(fn, weights(a=(1, 1, 3, 1), b=(1, 1, 4, 5), c=(5, 2)), X)
  assert [len(group.channels) for group in graph.groups] == [5]
