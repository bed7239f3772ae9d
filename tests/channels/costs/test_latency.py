"""Laws of the resource latency, with tables that are made by hand."""

import dataclasses
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import RESOURCES, Deployment
from gatprune_jax.channels.costs.resources.latency import make_latency
from tests.channels.costs.latency_tables import random_table, table_of
from tests.conftest import Example, small_resnet


class Varied(nn.Module):
  """Depthwise and grouped convolutions, a residual branch, and a flatten before the last layer."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(6, (3, 3), strides=2, use_bias=False)(x))
    x = x + nn.Conv(6, (1, 1), use_bias=False)(x)
    x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6, use_bias=False)(x))
    x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2, strides=2, use_bias=False)(x))
    return nn.Dense(5)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def graphs(example_b):
  # In the third network, padded shortcuts put channels of several groups on one axis.
  examples = (example_b, Example(Varied()), Example(small_resnet("A")))
  return [gp.trace(each.eval_fn, each.variables, each.x[:1]) for each in examples]


def tables(graph):
  yield random_table(graph, 0, constant=3.0, factor=0.5)
  yield random_table(graph, 1, block=4)


def masks(graph, seed=0):
  rng = np.random.default_rng(seed)
  for keep in (0.0, 0.2, 0.5, 0.8, 1.0):
    yield rng.random(graph.num_channels) < keep


def between(knots, times, width):
  """Returns the value on the lines between knots along the first axis of `times`."""
  return np.apply_along_axis(lambda line: np.interp(width, knots, line), 0, times)


def landed(graph, table, mask):
  """Returns a mask in which every group keeps as many channels as its number counts for."""
  mask = mask.copy()
  for group in graph.groups:
    size = len(group.channels)
    allowed = {0, size, *range(table.block, size, table.block)}
    for layer, timed in zip([ly for ly in graph.layers if ly.cut_axes], table.layers, strict=True):
      for ids, knots in zip(layer.cut_axes, table.shapes[timed.shape].widths, strict=True):
        each, fixed = (ids == group.channels[0]).sum(), (ids < 0).sum()
        for knot in knots if each else ():
          if (knot - fixed) % each == 0 and 0 < (knot - fixed) // each < min(table.block, size):
            allowed.add(int(knot - fixed) // int(each))
    goal = min(n for n in allowed if n >= mask[group.channels].sum())
    while mask[group.channels].sum() < goal:
      mask[group.channels[~mask[group.channels]][0]] = True
  return mask


def by_hand(graph, table, mask):
  """Returns the cost, from the definition of a table and without the code of the resource."""
  keep, total = np.append(landed(graph, table, mask), True), table.constant
  layers = [layer for layer in graph.layers if layer.cut_axes]
  for layer, timed in zip(layers, table.layers, strict=True):
    shape = table.shapes[timed.shape]
    # A width counts with the least time of any larger one.
    times = np.zeros(np.add(shape.seconds.shape, 1))
    for place in itertools.product(*map(range, shape.seconds.shape)):
      times[tuple(np.add(place, 1))] = shape.seconds[tuple(slice(k, None) for k in place)].min()
    for ids, knots in zip(layer.cut_axes, shape.widths, strict=True):
      times = between([0, *knots], times, keep[ids].sum())
    total += table.factor * timed.times * times
  return total


def test_the_cost_is_that_of_the_tables_definition(graphs):
  for graph in graphs:
    for table in tables(graph):
      for mask in masks(graph):
        expected = by_hand(graph, table, mask)
        assert gp.latency(graph, mask, table) == pytest.approx(expected, rel=1e-12)
        traced = jax.jit(lambda mask: gp.latency(graph, mask, table))(mask)  # noqa: B023
        assert traced == pytest.approx(expected, rel=1e-5)


def test_a_product_by_hand():
  variables = {"a": np.ones((3, 4), np.float32), "b": np.ones((4, 2), np.float32)}
  graph = gp.trace(lambda v, x: jnp.tanh(x @ v["a"]) @ v["b"], variables, np.ones((1, 3)))
  seconds = [{1: 5.0, 2: 7.0, 4: 6.0}, {1: 1.0, 2: 2.0, 4: 4.0}]
  seconds_of = lambda layer, widths: seconds[layer][widths[0]]
  table = table_of(graph, seconds_of, lambda width: (1, 2, 4), constant=10.0, factor=2.0)
  cost = lambda kept: gp.latency(graph, np.arange(4) < kept, table)
  # The first layer is faster with four outputs than with two, so two count with the time of four;
  # three are half way between 6 and 6, and in the second layer between 2 and 4.
  assert [cost(kept) for kept in range(5)] == [10, 22, 26, 28, 30]
  # In blocks of four, three count as four, and one and two, which are measured, as themselves.
  table = dataclasses.replace(table, block=4)
  assert [cost(kept) for kept in range(5)] == [10, 22, 26, 30, 30]
  # The slope is that of the line below: 2 * (0 + 1) a channel at four.
  slope = make_latency(graph, Deployment(1, table)).gradient(np.ones(4))
  np.testing.assert_allclose(slope, 2.0, rtol=1e-6)
  assert slope.dtype == np.float32


def test_adding_a_channel_never_lowers_the_cost_and_costs_the_difference(graphs):
  for graph in graphs:
    for table in tables(graph):
      resource = make_latency(graph, Deployment(1, table))
      for mask in masks(graph):
        more = resource.with_one_more(mask)
        exact = []
        for channel in range(graph.num_channels):
          wider = mask.copy()
          wider[channel] = True
          exact.append(resource.cost(wider))
        np.testing.assert_array_equal(more, exact)  # to the last bit, as `feasible` compares them
        assert (more >= resource.cost(mask)).all()


def test_a_table_of_multiply_adds_counts_multiply_adds(graphs):
  graph = graphs[0]
  layers = [layer for layer in graph.layers if layer.cut_axes]

  def macs_of(index, widths):
    layer = layers[index]
    fixed = [len(ids) for ids in layer.axes if (ids < 0).all()]
    return layer.macs_per_pair * float(np.prod([*fixed, *widths]))

  # A product is linear in each factor, so it is found exactly between a few knots.
  table = table_of(graph, macs_of, lambda width: sorted({1, (width + 1) // 2, width}))
  resource = make_latency(graph, Deployment(1, table))
  counted = RESOURCES["macs"](graph, Deployment())
  for mask in masks(graph):
    assert resource.cost(mask) == pytest.approx(counted.cost(mask), rel=1e-12)
    np.testing.assert_allclose(resource.with_one_more(mask), counted.with_one_more(mask))
    np.testing.assert_allclose(resource.gradient(mask), counted.gradient(mask), rtol=1e-4)


@pytest.mark.parametrize("index", [0, 2])
def test_topping_up_fills_blocks(graphs, index):
  graph = graphs[index]  # of 2 to 8 channels in a group
  table = table_of(graph, lambda _, widths: float(np.prod(widths)), block=2,
                   knots_of=lambda width: (2, width))  # fmt: skip
  constraints = gp.make_constraints(graph, {"latency": 0.6}, 0.0, deployment=Deployment(1, table))
  rng = np.random.default_rng(0)
  for _ in range(5):
    mask = constraints.top_up(constraints.smallest_mask(), rng.random(graph.num_channels))
    assert constraints.feasible(mask)
    assert [mask[group.channels].sum() % 2 for group in graph.groups] == [0] * len(graph.groups)


@pytest.mark.parametrize("index", [0, 2])
def test_free_channels_are_those_up_to_the_next_block(graphs, index):
  graph = graphs[index]
  table = table_of(graph, lambda _, widths: float(np.prod(widths)), block=4,
                   knots_of=lambda width: sorted({min(4, width), width}))  # fmt: skip
  limits = lambda *names: dict.fromkeys(names, 1.0)
  make = lambda *names: gp.make_constraints(
    graph, limits(*names), 0.0, deployment=Deployment(1, table)
  )
  latency, both = make("latency"), make("latency", "macs")
  priority, num_free = np.random.default_rng(1).random(graph.num_channels), 0
  for mask in masks(graph):
    mask |= latency.smallest_mask()
    full = latency.add_free(mask, priority)
    assert latency.ratios(full) == latency.ratios(mask)
    counts = landed(graph, table, mask)
    for group in graph.groups:
      removed = [n for n in group.channels if not mask[n]]
      added = counts[group.channels].sum() - mask[group.channels].sum()
      expected = sorted(removed, key=lambda n: -priority[n])[:added]
      assert set(np.flatnonzero(full & ~mask)) & set(group.channels) == set(expected)
      num_free += added
    # Where MACs are limited as well, no channel is free.
    np.testing.assert_array_equal(both.add_free(mask, priority), mask)
  assert num_free > 10


def test_a_limit_in_milliseconds(graphs):
  graph = graphs[0]
  table = table_of(graph, lambda _, widths: 1e-6 * float(np.prod(widths)))
  dense = gp.latency(graph, np.ones(graph.num_channels), table)
  deployment = Deployment(1, table)
  half = gp.make_constraints(graph, {"latency": f"{500 * dense}ms"}, 0.0, deployment=deployment)
  assert half.limits[0] == pytest.approx(0.5)
  assert half.statement(np.ones(graph.num_channels))["latency"]["unit"] == "seconds"


def test_layers_without_a_channel_cost_nothing():
  def fn(v, x):
    h = jnp.tanh(x @ v["first"])
    return (h + jnp.tanh(h @ v["in"]) @ v["out"]) @ v["last"]

  shapes = {"first": (3, 4), "in": (4, 5), "out": (5, 4), "last": (4, 2)}
  variables = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((1, 3), np.float32))
  table = table_of(graph, lambda _, widths: 1.0 + sum(widths))
  mask = np.ones(graph.num_channels)
  mask[graph.groups[1].channels] = 0  # the branch
  # The first layer takes 1 + 4 and the last 1 + 4.
  assert gp.latency(graph, mask, table) == 10
