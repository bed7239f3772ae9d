"""Budgets, floors and the spending of what is left."""

import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import (
  keep_floors,
  make_constraints,
  raise_to_floors,
  rank_in_group,
)
from gatprune_jax.criteria import allocate


@pytest.fixture
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x)


def test_floors_round_up(graph):
  # Widths 4 4 6 6 8 8, a quarter: 1 1 1.5 1.5 2 2.
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


def test_only_groups_below_their_floor_are_raised():
  group_of, starts = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 3])
  priority = np.array([1, 2, 3, 6, 5, 4], np.float32)
  mask = np.array([True, False, False, False, False, False])
  raised = raise_to_floors(mask, priority, group_of, starts, np.array([2, 2]))
  # Group 0 keeps its bit and gains channel 2, the best other; group 1 gains its best two.
  assert raised.tolist() == [True, False, True, True, True, False]
  enough = np.array([True, True, False, False, False, True])
  floors = np.array([2, 1])
  np.testing.assert_array_equal(raise_to_floors(enough, priority, group_of, starts, floors), enough)


def test_top_up_is_feasible_and_maximal(graph):
  constraints = make_constraints(graph, {"macs": 0.4, "params": 0.5}, 0.0)
  start = np.zeros(graph.num_channels, bool)
  start[[group.channels[0] for group in graph.groups]] = True
  mask = constraints.top_up(start, np.random.default_rng(0).random(graph.num_channels))
  assert (mask >= start).all()
  assert constraints.feasible(mask)
  for channel in np.flatnonzero(~mask):
    more = mask.copy()
    more[channel] = True
    assert not constraints.feasible(more)


def test_violations_by_hand(graph):
  constraints = make_constraints(graph, {"macs": 0.5, "params": 0.8}, 0.0)
  ones = np.ones(graph.num_channels)
  # Names are sorted: macs, params. (1 - 0.5) / 0.5 = 1, (1 - 0.8) / 0.8 = 0.25.
  np.testing.assert_allclose(constraints.budgets.violations(ones), [1.0, 0.25])
  assert not constraints.feasible(ones)


def test_the_smallest_reachable_share_is_named_and_reachable(graph):
  with pytest.raises(gp.InputError, match="smallest reachable share is") as error:
    make_constraints(graph, {"macs": 1e-4}, 0.25)
  reachable = float(str(error.value).split()[-1])
  constraints = make_constraints(graph, {"macs": reachable}, 0.25)
  assert constraints.feasible(constraints.smallest_mask())
  assert reachable - 1e-4 < constraints.reachable()["macs"] <= reachable
  with pytest.raises(gp.InputError, match="cannot be reached"):
    make_constraints(graph, {"macs": reachable - 2e-4}, 0.25)


@pytest.mark.parametrize("limits", [{}, {"macs": 0.0}, {"macs": -1}, {"params": 1.01}, {"time": 1}])
def test_bad_budgets_are_refused(graph, limits):
  with pytest.raises(gp.InputError, match="budget"):
    make_constraints(graph, limits, 0.0)


@pytest.mark.parametrize("repeated", [slice(2, None), slice(None, 4)])
def test_channels_of_a_group_cost_the_same(repeated):
  def fn(v, x):
    h = jnp.tanh(x @ v["a"])
    return jnp.concatenate([h, h[:, repeated], h[:, repeated]], -1) @ v["b"]

  graph = gp.trace(fn, {"a": np.ones((3, 6)), "b": np.ones((14, 50))}, np.ones((2, 3)))
  # Two channels are read once and four three times: 3 + 50 or 3 + 150 multiply-adds each, 718 in
  # all. The smallest network keeps one of both: 206 / 718, and no choice of which one matters.
  assert sorted(len(group.channels) for group in graph.groups) == [2, 4]
  constraints = make_constraints(graph, {"macs": 206 / 718}, 0.0)
  for order in (np.arange(6), np.arange(6)[::-1]):
    mask = allocate(constraints, order)
    assert mask.sum() == 2
    assert constraints.feasible(mask)


def test_a_resource_that_the_network_does_not_have_is_refused():
  fn = lambda v, x: jnp.tanh(x @ v["a"]) @ v["b"]
  variables = {"params": {}, "a": np.ones((3, 6)), "b": np.ones((6, 2))}
  graph = gp.trace(fn, variables, np.ones((2, 3)))
  assert gp.params(graph, np.ones(6)) == 0
  with pytest.raises(gp.InputError, match="the dense network has 0 params, so leave it out"):
    make_constraints(graph, {"params": 0.5}, 0.0)
  with pytest.raises(gp.InputError, match=r"the mask has shape \(5,\), but this network has 6 cha"):
    gp.macs(graph, np.ones(5))
