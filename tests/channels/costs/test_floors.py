"""Tests of the floors of groups, and of ranks within groups."""

import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import keep_floors, rank_in_group


@pytest.fixture
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x)


def test_floors_round_up(graph):
  # The widths are 4 4 6 6 8 8, so a quarter of each is 1 1 1.5 1.5 2 2.
  assert keep_floors(graph, 0.25).tolist() == [1, 1, 2, 2, 2, 2]
  assert keep_floors(graph, 0.0).tolist() == [1] * 6
  with pytest.raises(gp.InputError, match=r"1\.5"):
    keep_floors(graph, 1.5)


@pytest.mark.parametrize(("fraction", "floor"), [(0.07, 7), (0.55, 55), (0.071, 8)])
def test_floors_are_those_of_decimal_fractions(fraction, floor):
  variables = {"a": np.ones((3, 100)), "b": np.ones((100, 2))}
  graph = gp.trace(lambda v, x: jnp.tanh(x @ v["a"]) @ v["b"], variables, np.ones((2, 3)))
  assert keep_floors(graph, fraction).tolist() == [floor]


def test_rank_in_group_by_hand():
  priority = np.array([0.1, 0.9, 0.5, 0.5, 3.0], np.float32)
  group_of, starts = np.array([0, 1, 0, 0, 1]), np.array([0, 3])
  assert rank_in_group(priority, group_of, starts).tolist() == [2, 1, 0, 1, 0]
