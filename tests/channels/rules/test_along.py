"""Tests of operations that depend on all elements of an axis: along space, and along channels."""

import jax
import jax.numpy as jnp
import pytest

from tests.channels.rules.networks import around, assert_carries, assert_freezes
from tests.channels.rules.test_rules import check, indices


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize(
  ("name", "operation"),
  [
    ("sort", lambda y, axis: jnp.sort(y, axis=axis)),
    ("sort", lambda y, axis: jax.lax.sort((y, 2 * y), dimension=axis, num_keys=1)[1]),
    ("top_k", lambda y, axis: _moved(y, axis, lambda z: jax.lax.top_k(z, z.shape[-1])[0])),
    ("fft", lambda y, axis: _moved(y, axis, lambda z: jnp.fft.fft(z).real)),
    ("cumsum", lambda y, axis: jnp.cumsum(y, axis=axis)),
    ("reduce", lambda y, axis: y - _norm(y, axis)),
  ],
)
def test_an_operation_along_space_carries_channels_and_one_along_channels_freezes(
  name, operation, axis
):
  along = lambda y: operation(y, axis)
  if axis == 1:
    assert_carries(along)
  else:
    assert_freezes(along, f"`{name}`")


def _moved(y, axis, operation):
  """Applies an operation along the last axis to another one."""
  return jnp.moveaxis(operation(jnp.moveaxis(y, axis, -1)), -1, axis)


def _norm(y, axis):
  """Computes the sum and the largest value of an axis in one reduction of two arrays."""
  both = lambda a, b: (a[0] + b[0], jnp.maximum(a[1], b[1]))
  total, most = jax.lax.reduce((y, y), (0.0, -jnp.inf), both, [axis])
  return jnp.expand_dims(total + most, axis)


def test_operands_that_are_sorted_together_are_tied():
  # The order of one half of the channels moves the other half.
  def operation(y):
    left, right = jnp.split(y, 2, axis=-1)
    return jnp.concatenate(jax.lax.sort((left, right), dimension=1, num_keys=1), axis=-1)

  graph = check(*around(operation))
  assert indices(graph, "a", 3) == [0, 1, 0, 1]
