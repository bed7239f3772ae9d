"""Tests of budgets, and of topping up a mask until no other channel fits into them."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import allocate
from tests.conftest import Example, small_resnet


@pytest.fixture
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x)


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
  # The names are sorted: macs, then params. (1 - 0.5) / 0.5 = 1, (1 - 0.8) / 0.8 = 0.25.
  np.testing.assert_allclose(constraints.budgets.violations(ones), [1.0, 0.25])
  assert not constraints.feasible(ones)


def test_the_smallest_reachable_share_is_named_and_reachable(graph):
  with pytest.raises(gp.InputError, match="smallest reachable share is") as error:
    make_constraints(graph, {"macs": 1e-4}, 0.25)
  reachable = float(re.search(r"share is ([\d.]+)", str(error.value))[1])
  constraints = make_constraints(graph, {"macs": reachable}, 0.25)
  assert constraints.feasible(constraints.smallest_mask())
  assert reachable - 1e-4 < constraints.reachable()["macs"] <= reachable
  with pytest.raises(gp.InputError, match="cannot be reached"):
    make_constraints(graph, {"macs": reachable - 2e-4}, 0.25)


def test_where_residual_branches_may_go_the_share_without_them_is_advised():
  net = Example(small_resnet("A"))
  graph = gp.trace(net.eval_fn, net.variables, net.x)
  advice = r"share is (\S+), or (\S+) with search\.allow_empty=True"
  with pytest.raises(gp.InputError, match=advice) as error:
    make_constraints(graph, {"macs": 1e-4}, 0.25)
  least, lower = map(float, re.search(advice, str(error.value)).groups())
  assert lower < least
  make_constraints(graph, {"macs": lower}, 0.25, allow_empty=True)
  with pytest.raises(gp.InputError, match=f"share is {lower}$"):
    make_constraints(graph, {"macs": lower - 2e-4}, 0.25, allow_empty=True)


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
  # Two channels are read once and four are read three times. That makes 3 + 50 or 3 + 150
  # multiply-adds for each, 718 in all. The smallest network keeps one channel of each group, which
  # costs 206 / 718 whichever channels they are.
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
