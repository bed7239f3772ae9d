"""Tests of the resources: exact counts, their gradients, and the cost of one more channel."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import MEASURED, RESOURCES, Deployment, make_constraints
from tests.conftest import Example

COUNTED = sorted({*RESOURCES} - {*MEASURED})  # `test_latency.py` has the laws of the others


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=("seconds",), meta_fields=("unit",)
)
@dataclasses.dataclass(frozen=True, eq=False)
class Latency:
  """A latency that grows in steps, because kernels compute channels in blocks of four.

  Unlike the resources of the package, this latency is not a sum of products.
  """

  seconds: np.ndarray  # [ceil(N / 4) + 1], indexed by the number of blocks
  unit: str = "seconds"

  def cost(self, mask):
    kept = mask.sum()
    # Under a trace, straight lines join the steps, so that the cost has a gradient.
    if isinstance(mask, jax.core.Tracer):
      return jnp.interp(kept / 4, jnp.arange(len(self.seconds)), jnp.asarray(self.seconds))
    return self.seconds[int(-(-kept // 4))]

  def gradient(self, mask):
    return jax.grad(self.cost)(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask):
    return np.where(mask, self.cost(mask), self.seconds[-(-(mask.sum() + 1) // 4)])


def latency(graph, deployment):
  steps = np.arange(-(-graph.num_channels // 4) + 1)
  return Latency(1.0 + steps**1.5)


@pytest.fixture
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x)


def with_channel(mask, channel):
  more = mask.copy()
  more[channel] = True
  return more


@pytest.mark.parametrize("name", COUNTED)
def test_one_more_channel_costs_what_the_mask_with_it_costs(name, example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  resource, rng = RESOURCES[name](graph, Deployment()), np.random.default_rng(0)
  for keep in (0.0, 0.2, 0.7, 1.0):
    mask = rng.random(graph.num_channels) < keep
    costs = [resource.cost(with_channel(mask, channel)) for channel in range(len(mask))]
    np.testing.assert_array_equal(resource.with_one_more(mask), costs)


@pytest.mark.parametrize("name", COUNTED)
def test_the_cost_without_each_group_is_that_of_the_mask_without_it(name, example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  resource, costs = RESOURCES[name](graph, Deployment()), []
  for group in graph.groups:
    mask = np.ones(graph.num_channels)
    mask[group.channels] = 0
    costs.append(resource.cost(mask))
  sets = [group.channels for group in graph.groups]
  np.testing.assert_allclose(resource.without_each(sets), costs, rtol=1e-12)


def test_channels_on_several_axes_of_a_layer_are_added_on_all_of_them():
  fn = lambda v, x: (lambda h: (h + h @ v["square"]) @ v["last"])(x @ v["first"])
  variables = {"first": np.ones((3, 4)), "square": np.ones((4, 4)), "last": np.ones((4, 2))}
  graph = gp.trace(fn, variables, np.ones((5, 3)))
  resource = RESOURCES["macs"](graph, Deployment())
  mask = np.array([True, False, False, False])
  # k channels cost 3 k + k k + 2 k multiply-adds: 6 for one channel, 14 for two.
  assert resource.with_one_more(mask).tolist() == [6, 14, 14, 14]


@pytest.mark.parametrize("name", COUNTED)
def test_the_gradient_is_that_of_finite_differences(name, graph):
  resource, rng = RESOURCES[name](graph, Deployment()), np.random.default_rng(0)
  point = rng.uniform(0.2, 0.8, graph.num_channels)
  gradient = resource.gradient(point)
  assert gradient.dtype == np.float32
  step = 1e-4 * np.eye(graph.num_channels)
  # Outside of a trace, costs are counted in float64, so that small differences are accurate.
  slopes = [(resource.cost(point + d) - resource.cost(point - d)) / 2e-4 for d in step]
  np.testing.assert_allclose(gradient, slopes, rtol=1e-5)


def test_bytes_of_weights_by_hand():
  fn = lambda v, x: jnp.tanh(x @ v["a"]) @ v["b"].astype(jnp.float32)
  variables = {"a": np.ones((3, 4), np.float32), "b": np.ones((4, 2), jnp.bfloat16)}
  graph = gp.trace(fn, variables, np.ones((1, 3)))
  # A channel has a column of three numbers of 4 bytes, and a row of two numbers of 2 bytes.
  assert gp.weight_bytes(graph, np.ones(4)) == 4 * (3 * 4 + 2 * 2)
  assert gp.weight_bytes(graph, np.array([1, 0, 0, 1])) == 2 * (3 * 4 + 2 * 2)


class TwoConvolutions(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(4, (3, 3), strides=2, use_bias=False)(x))
    return nn.Conv(3, (1, 1), use_bias=False)(x)


def test_bytes_of_activations_by_hand():
  e = Example(TwoConvolutions())
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  # The input has 2 channels at 8 x 8 positions. The first layer writes 4 channels at 4 x 4 of them,
  # and its activation function writes over them. The second layer reads them and writes 3.
  assert gp.activation_bytes(graph, np.ones(4)) == 4 * (2 * 64 + (4 + 3) * 16)
  assert gp.activation_bytes(graph, np.array([1, 0, 0, 1])) == 4 * (2 * 64 + (2 + 3) * 16)
  assert gp.activation_bytes(graph, np.ones(4), batch=5) == 5 * 4 * (2 * 64 + (4 + 3) * 16)
  with pytest.raises(gp.InputError, match="deployment batch is 0: it must be at least 1"):
    gp.activation_bytes(graph, np.ones(4), batch=0)


def dense(x, kernel):
  return jnp.tanh(x @ kernel)


def test_what_is_needed_later_stays_in_memory():
  def fn(v, x):
    h = dense(x, v["a"])
    return (h + dense(dense(h, v["b"]), v["c"])) @ v["d"]

  shapes = {"a": (1, 8), "b": (8, 20), "c": (20, 8), "d": (8, 1)}
  variables = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((1, 1), np.float32))
  mask = np.ones(graph.num_channels, bool)
  # The widths are 8 and 20. Beside the input, 8 + 20 numbers are in memory at c, and 8 more of its
  # result. Without 16 of the 20 the same moment has 8 + 4 + 8.
  assert gp.activation_bytes(graph, mask) == 4 * (1 + 8 + 20 + 8)
  mask[graph.groups[1].channels[4:]] = False
  assert gp.activation_bytes(graph, mask) == 4 * (1 + 8 + 4 + 8)


def test_cheap_results_are_computed_again_and_expensive_ones_are_kept():
  def network(activation):
    def fn(v, x):
      h = activation(x @ v["a"])
      h = activation(h + h @ v["b"])
      h = activation(h + h @ v["b"])
      return h @ v["c"]

    variables = {"a": np.ones((1, 8)), "b": np.ones((8, 8)), "c": np.ones((8, 1))}
    return gp.trace(fn, variables, np.ones((1, 1), np.float32))

  # Each sum reads relu's operands again: the results of the first product and of both others. At
  # the second product by b the input of that product is there too.
  assert gp.activation_bytes(network(nn.relu), np.ones(8)) == 4 * (1 + 4 * 8)
  # A tanh is computed once, so that its result, the input and the result of the product by b are
  # all that is needed.
  assert gp.activation_bytes(network(jnp.tanh), np.ones(8)) == 4 * (1 + 2 * 8)


def test_constants_and_weights_are_not_activations():
  table = np.ones((6, 4), np.float32)

  def fn(v, x):
    return (dense(x, v["a"]) * table.sum(1)[None]) @ (v["b"] * 2)

  graph = gp.trace(fn, {"a": np.ones((3, 6)), "b": np.ones((6, 2))}, np.ones((1, 3), np.float32))
  # The doubled kernel is written before it is used: 6 x 2 numbers, whatever the batch.
  assert gp.activation_bytes(graph, np.ones(6), batch=7) == 4 * (7 * (3 + 6 + 2) + 12)
  assert gp.activation_bytes(graph, np.arange(6) < 2, batch=7) == 4 * (7 * (3 + 2 + 2) + 4)


def test_a_scan_holds_what_one_iteration_needs():
  def fn(v, x):
    step = lambda h, _: (jnp.tanh(h @ v["loop"]), None)
    h, _ = jax.lax.scan(step, x @ v["first"], length=5)
    return jnp.tanh(h @ v["second"]) @ v["last"]

  shapes = {"first": (3, 6), "loop": (6, 6), "second": (6, 4), "last": (4, 2)}
  variables = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((7, 3), np.float32))
  # The input has 3 numbers, and the state of the loop 6, before and after an iteration.
  assert gp.activation_bytes(graph, np.ones(10)) == 4 * (3 + 6 + 6)
  assert gp.activation_bytes(graph, np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 1])) == 4 * (3 + 2 + 4)


def greedy(constraints, mask, priority):
  """Returns the mask with every channel added that fits, in the order of priority.

  The cost of each candidate mask is counted anew.

  Args:
    constraints: the budgets that the mask must fit.
    mask: `[N]` bool, the channels to begin with.
    priority: `[N]`, the highest first.
  """
  for channel in np.argsort(-priority, kind="stable"):
    if constraints.feasible(more := with_channel(mask, channel)):
      mask = more
  return mask


@pytest.mark.parametrize(
  "limits",
  [
    {"macs": 0.4},
    {"activation_bytes": 0.5, "params": 0.6},
    {"latency": 0.5},
    {"latency": 0.7, "macs": 0.5},
  ],
)
def test_topping_up_is_the_plain_greedy_loop(limits, graph, monkeypatch):
  monkeypatch.setitem(RESOURCES, "latency", latency)
  constraints, rng = make_constraints(graph, limits, 0.0), np.random.default_rng(0)
  for mask in (constraints.smallest_mask(), np.zeros(graph.num_channels, bool)):
    priority = np.round(4 * rng.random(graph.num_channels))  # rounded, so that priorities tie
    full = constraints.top_up(mask, priority)
    np.testing.assert_array_equal(full, greedy(constraints, mask, priority))
    assert constraints.costs(full).keys() == limits.keys()
    assert all(cost <= limits[name] for name, cost in constraints.costs(full).items())
