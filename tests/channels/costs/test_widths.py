"""Tests of allowed widths, and of how a mask is brought to them."""

import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax.channels import Deployment, bring_to_widths, make_constraints, nearest_widths
from tests.channels.costs.latency_tables import random_table

WIDTHS = np.array([4, 4, 6, 6, 8, 8])


def test_every_width_from_the_floor_on_is_allowed_where_costs_are_counted():
  widths = nearest_widths(np.array([4, 2]), np.array([2, 0]), 1)
  assert widths.tolist() == [[2, 2, 2, 3, 4], [0, 1, 2, 2, 2]]  # a group has no more than it has


def test_blocks_by_hand():
  widths = nearest_widths(np.array([10, 8, 3]), np.array([1, 0, 1]), 4)
  assert widths.tolist() == [
    [1, 1, 1, 4, 4, 4, 8, 8, 8, 10, 10],  # 1, 4, 8 and 10 are allowed, 6 and 9 go up
    [0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 8],
    [1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3],
  ]


def test_groups_grow_and_shrink_by_priority():
  group_of, starts = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 4])
  priority = np.array([1, 2, 3, 4, 8, 7, 6, 5], np.float32)
  mask = np.array([True, True, True, False, False, False, False, True])
  widths = nearest_widths(np.array([4, 4]), np.array([2, 2]), 2)
  brought = bring_to_widths(mask, priority, group_of, starts, widths)
  # Group 0 keeps three channels and gains the one that it lacks, because of 2 and 4 the larger one
  # is chosen. Group 1 keeps channel 7 and gains channel 4, which has the highest priority.
  assert brought.tolist() == [True] * 4 + [True, False, False, True]
  widths = jnp.array([[0, 1, 2, 2, 4], [0, 0, 2, 2, 2]])
  brought = bring_to_widths(mask, priority, group_of, starts, widths)
  # Group 0 loses channel 0, which has the lowest priority, and group 1 loses its only one.
  assert brought.tolist() == [False, True, True, False] + [False] * 4


def test_only_groups_below_their_floor_are_raised():
  group_of, starts = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 3])
  priority = np.array([1, 2, 3, 6, 5, 4], np.float32)
  mask = np.array([True, False, False, False, False, False])
  widths = nearest_widths(np.array([3, 3]), np.array([2, 2]), 1)
  raised = bring_to_widths(mask, priority, group_of, starts, widths)
  # Group 0 keeps channel 0 and gains channel 2, which has the highest priority of the rest. Group 1
  # gains the two channels with the highest priority.
  assert raised.tolist() == [True, False, True, True, True, False]
  enough = np.array([True, True, False, False, False, True])
  widths = nearest_widths(np.array([3, 3]), np.array([2, 1]), 1)
  np.testing.assert_array_equal(bring_to_widths(enough, priority, group_of, starts, widths), enough)


def test_blocks_count_only_where_latency_is_constrained(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)  # widths 4 4 6 6 8 8
  table = random_table(graph, 0, block=4)
  deployment = Deployment(table.batch, table)
  counted = make_constraints(graph, {"macs": 1.0}, 0.25, deployment=deployment)
  np.testing.assert_array_equal(counted.widths, nearest_widths(WIDTHS, counted.floors, 1))
  timed = make_constraints(graph, {"macs": 1.0, "latency": 1.0}, 0.25, deployment=deployment)
  np.testing.assert_array_equal(timed.widths, nearest_widths(WIDTHS, timed.floors, 4))
