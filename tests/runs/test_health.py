"""Tests of the choice between a new state and the one before it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.runs.health import Health, all_finite, healthy, take_if_finite


@flax.struct.dataclass
class State:
  leaves: list[jax.Array]
  health: Health


def step(state, value):
  new = State([leaf + value for leaf in state.leaves], state.health)
  return take_if_finite(all_finite(new.leaves), new, state)


def test_a_state_that_is_not_finite_is_not_taken():
  state = State([jnp.zeros(2), jnp.ones((3, 1))], healthy())
  state = jax.jit(step)(state, jnp.float32(np.nan))
  state = jax.jit(step)(state, jnp.float32(np.inf))
  np.testing.assert_array_equal(state.leaves[1], np.ones((3, 1)))
  assert (state.health.skipped, state.health.in_a_row, state.health.finite) == (2, 2, 0)
  state = jax.jit(step)(state, 0.5)
  np.testing.assert_array_equal(state.leaves[1], np.full((3, 1), 1.5))
  assert (state.health.skipped, state.health.in_a_row, state.health.finite) == (2, 0, 1)


@pytest.mark.parametrize("num", [2, 20])
def test_the_choice_is_one_operation(num):
  # A choice for each leaf takes XLA a time that grows with the square of their number.
  state = State([jnp.ones(2)] * num, healthy())
  equations = jax.make_jaxpr(step)(state, 1.0).eqns
  names = [eqn.primitive.name for eqn in equations]
  assert names.count("cond") == 1
  assert names.count("select_n") == 0
