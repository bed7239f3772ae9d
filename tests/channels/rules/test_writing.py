"""Tests of operations that write one array into another."""

import jax
import jax.numpy as jnp
import pytest

from tests.channels.rules.networks import SHAPE, assert_carries, assert_freezes
from tests.channels.rules.test_rules import check, conv, indices, weights


@pytest.mark.parametrize(
  "operation",
  [
    lambda y: y.at[:, 0].set(0.0),
    lambda y: y.at[:, jnp.array([1, 3])].add(1.0),
    lambda y: y.at[:, ::2].multiply(y[:, ::2]),
    lambda y: y.at[:, 1:3].max(y[:, :2]),
    # Unpooling: every value is written to one of four places.
    lambda y: jnp.zeros((SHAPE[0], 12, 12, SHAPE[3])).at[:, ::2, 1::2].set(y),
    lambda y: jax.lax.dynamic_update_slice(y, y[:, :2], (0, 3, 0, 0)),
  ],
)
def test_writing_to_places_carries_channels(operation):
  assert_carries(operation)


@pytest.mark.parametrize(
  ("operation", "name"),
  [
    (lambda y: y.at[..., 0].set(0.0), "scatter"),
    (lambda y: y.at[..., jnp.array([0, 2])].add(y[..., :2]), "scatter"),
    (lambda y: jax.lax.dynamic_update_slice(y, y[..., :2], (0, 0, 0, 1)), "dynamic_update_slice"),
  ],
)
def test_writing_to_channels_freezes_them(operation, name):
  assert_freezes(operation, name)


def test_what_is_written_is_tied_to_what_it_replaces():
  # Two layers share an array: one writes the upper half of the image, the other the lower.
  def fn(v, x):
    upper, lower = conv(x[:, :3], v["a"]), conv(x[:, 3:], v["b"])
    y = jnp.zeros(SHAPE).at[:, :3].set(upper).at[:, 3:].set(lower)
    return jax.nn.relu(y).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 4), b=(1, 1, 3, 4), c=(4, 2)))
  assert indices(graph, "a", 3) == indices(graph, "b", 3) == [0, 1, 2, 3]
