"""Tests of saliency scores, by hand and by finite differences, and of allocation's invariants."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import (
  CRITERIA,
  Evidence,
  allocate,
  channel_order,
  classical_pruners,
  score_channels,
)
from gatprune_jax.networks import CLASSIFICATION, Network


def evidence(eval_fn, variables, x, y=None, key=0):
  graph = gp.trace(eval_fn, variables, x)
  network = Network(eval_fn, None, variables)
  return Evidence(graph, network, CLASSIFICATION, x, y, jax.random.key(key))


def tiny(kernel):
  """Returns the evidence for two dense layers; the columns of the kernel are the filters."""
  variables = {"first": jnp.asarray(kernel, jnp.float32), "last": jnp.ones((len(kernel[0]), 2))}
  eval_fn = lambda v, x: jax.nn.relu(x @ v["first"]) @ v["last"]
  return evidence(eval_fn, variables, jnp.ones((1, len(kernel))))


def test_norms_by_hand():
  # The filters are (3, -4), (1, 0), (0, -2). Their L1 norms 7, 1, 2 are divided by the mean 10/3,
  # and their L2 norms 5, 1, 2 by the mean 8/3.
  given = tiny([[3, 1, 0], [-4, 0, -2]])
  np.testing.assert_allclose(score_channels("l1", given), np.array([7, 1, 2]) * 3 / 10)
  np.testing.assert_allclose(score_channels("l2", given), np.array([5, 1, 2]) * 3 / 8)


def test_a_kernel_on_the_left_does_not_take_the_other_side_for_its_filters():
  # Every position has an embedding of its own, so the positions are a free axis of the dot product
  # besides the outputs of k, which stands on the left.
  def fn(v, x):
    h = jax.nn.relu(x @ v["w"])[:, None] + v["e"][None]
    return jax.lax.dot_general(v["k"], h, (((1,), (2,)), ((), ()))).mean(2).T @ v["h"]

  w = jnp.array([[1.0, -3], [0, 1]])  # L1 norms 1 and 4, divided by their mean of 5/2
  k = jnp.array([[1.0, -1], [0, 1], [3, 0], [1, 2]])  # 2, 1, 3 and 3, divided by 9/4
  given = evidence(
    fn, {"w": w, "e": jnp.ones((3, 2)), "k": k, "h": jnp.ones((4, 2))}, jnp.ones((2, 2))
  )
  expected = [2 / 5, 8 / 5, 8 / 9, 4 / 9, 12 / 9, 12 / 9]
  np.testing.assert_allclose(score_channels("l1", given), expected, rtol=1e-6)


def test_channels_on_each_axis_of_a_kernel_have_norms_of_their_own():
  # A kernel [1, 2, 3] writes two heads of three elements.
  kernel = jnp.array([[[1.0, -1, 0], [2, 3, 5]]])
  fn = lambda v, x: jnp.einsum("nab,abo->no", jnp.einsum("ni,iab->nab", x, v["k"]), v["o"])
  given = evidence(fn, {"k": kernel, "o": jnp.ones((2, 3, 2))}, jnp.ones((2, 1)))
  # The elements have L1 norms 3, 4 and 5, divided by their mean 4; the heads 2 and 10, by 6.
  expected = [3 / 4, 1, 5 / 4, 2 / 6, 10 / 6]
  np.testing.assert_allclose(score_channels("l1", given), expected, rtol=1e-6)


def test_geometric_median_by_hand():
  # The filters are 0, 3 and 4 on a line. Their summed distances 7, 4, 5 are divided by the mean
  # 16/3. Filter 3 is the nearest to the median.
  scores = score_channels("fpgm", tiny([[0, 3, 4], [0, 0, 0]]))
  np.testing.assert_allclose(scores, np.array([7, 4, 5]) * 3 / 16)
  assert scores.argmin() == 1


def test_bn_scale_is_the_mean_over_a_coupled_stream(example_b):
  e = example_b
  given = evidence(e.eval_fn, e.variables, e.x)
  params = e.variables["params"]
  scores = score_channels("bn_scale", given)
  # The stem and the last layer of the block both produce this stream.
  stream = given.graph.groups[0].channels
  expected = (
    np.abs(params["norm_stem"]["scale"]) + np.abs(params["stage1_0"]["norm2"]["scale"])
  ) / 2
  np.testing.assert_allclose(scores[stream], expected, rtol=1e-6)


def test_channels_without_a_gamma_score_as_the_mean_of_those_with_one():
  def eval_fn(v, x):
    h = jax.nn.relu((x @ v["first"]) * v["scale"][None])
    return jax.nn.relu(h @ v["second"]) @ v["last"]

  scale = jnp.array([-1.0, 2.0, 6.0])
  variables = {
    "first": jnp.ones((2, 3)), "scale": scale, "second": jnp.ones((3, 2)), "last": jnp.ones((2, 2))
  }  # fmt: skip
  scores = score_channels("bn_scale", evidence(eval_fn, variables, jnp.ones((1, 2))))
  np.testing.assert_allclose(scores, [1, 2, 6, 3, 3])


def test_gammas_of_frozen_channels_alone_are_none():
  def eval_fn(v, x):  # `sort` freezes the channels of the first layer
    h = jnp.sort(x @ v["first"], axis=-1) * v["scale"][None]
    return jax.nn.relu(h @ v["second"]) @ v["last"]

  variables = {
    "first": jnp.ones((2, 3)), "scale": jnp.ones(3), "second": jnp.ones((3, 2)),
    "last": jnp.ones((2, 2)),
  }  # fmt: skip
  with pytest.raises(gp.InputError, match="no channel that can be removed has one"):
    score_channels("bn_scale", evidence(eval_fn, variables, jnp.ones((1, 2))))


def test_gammas_of_nnx_networks():
  class Net(nnx.Module):
    def __init__(self, rngs):
      self.first = nnx.Linear(3, 4, rngs=rngs)
      gamma = lambda *_: jnp.array([3.0, -1.0, 0.5, 2.0])
      self.norm = nnx.BatchNorm(4, use_running_average=True, scale_init=gamma, rngs=rngs)
      self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
      return self.last(jax.nn.relu(self.norm(self.first(x))))

  definition, state = nnx.split(Net(nnx.Rngs(0)))
  given = evidence(lambda state, x: nnx.merge(definition, state)(x), state, jnp.ones((2, 3)))
  np.testing.assert_allclose(score_channels("bn_scale", given), [3, 1, 0.5, 2])


def test_taylor_is_the_squared_derivative_of_the_loss():
  # The network is smooth, so that central differences are accurate.
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  variables = {"first": normal(3, 4), "last": normal(4, 2)}
  x, y = normal(20, 3), jnp.asarray(rng.integers(0, 2, 20))

  def losses(mask):
    logits = (jnp.tanh(x @ variables["first"]) * mask[None]) @ variables["last"]
    return np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, y), np.float64)

  eval_fn = lambda v, x: jnp.tanh(x @ v["first"]) @ v["last"]
  scores = score_channels("taylor", evidence(eval_fn, variables, x, y))
  for channel in range(4):
    step = np.zeros(4, np.float32)
    step[channel] = 1e-2
    derivative = (losses(1 + step) - losses(1 - step)) / 2e-2
    np.testing.assert_allclose(scores[channel], (derivative**2).mean(), rtol=1e-3)


def test_random_follows_its_key(example_b):
  e = example_b
  one, same, other = (evidence(e.eval_fn, e.variables, e.x, key=k) for k in (0, 0, 1))
  scores = [score_channels("random", given) for given in (one, same, other)]
  np.testing.assert_array_equal(scores[0], scores[1])
  assert not np.array_equal(scores[0], scores[2])


def test_unknown_and_inapplicable_criteria_are_refused():
  given = tiny([[1, 2], [3, 4]])
  with pytest.raises(gp.InputError, match="criterion 'magic' is unknown: choose from random, l1"):
    score_channels("magic", given)
  with pytest.raises(gp.InputError, match="bn_scale needs normalisation layers"):
    score_channels("bn_scale", given)


def test_orders_by_hand(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)  # widths 4 4 6 6 8 8
  scores = np.arange(graph.num_channels, dtype=float)
  np.testing.assert_array_equal(
    channel_order(graph, scores, "global"), np.arange(graph.num_channels)[::-1]
  )
  order = channel_order(graph, scores, "uniform")
  # The first half of the order holds exactly half of each group, the half with the higher scores.
  half = order < graph.num_channels // 2
  for group in graph.groups:
    width = len(group.channels)
    np.testing.assert_array_equal(half[group.channels], np.arange(width) >= width // 2)
  with pytest.raises(gp.InputError, match="scope 'local'"):
    channel_order(graph, scores, "local")


@pytest.mark.parametrize(
  "limits", [{"macs": 0.3}, {"params": 0.5}, {"macs": 0.6, "params": 0.2, "activation_bytes": 0.8}]
)
def test_every_pruner_meets_every_budget_closely(example_b, limits):
  e = example_b
  given = evidence(e.eval_fn, e.variables, jnp.asarray(e.x), jnp.asarray(e.y))
  graph = given.graph
  constraints = make_constraints(graph, limits, 0.25)
  scores = {name: score_channels(name, given) for name in CRITERIA}
  pruners = classical_pruners(constraints, scores)
  assert len({pruner.name for pruner in pruners}) == 2 * len(CRITERIA)
  for pruner in pruners:
    assert constraints.feasible(pruner.mask)
    widths = [pruner.mask[group.channels].sum() for group in graph.groups]
    assert (widths >= constraints.floors).all()
    for channel in np.flatnonzero(~pruner.mask):  # no further channel fits the budgets
      more = pruner.mask.copy()
      more[channel] = True
      assert not constraints.feasible(more)


def test_allocation_keeps_the_longest_prefix_that_fits(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  constraints = make_constraints(graph, {"macs": 0.3}, 0.0)
  order = np.random.default_rng(0).permutation(graph.num_channels)
  first = [group.channels[order[group.channels].argmin()] for group in graph.groups]

  def prefix(size):
    mask = order < size
    mask[first] = True  # every group has a floor of one
    return mask

  longest = max(s for s in range(graph.num_channels + 1) if constraints.feasible(prefix(s)))
  mask = allocate(constraints, order)
  assert (mask >= prefix(longest)).all()
  np.testing.assert_array_equal(mask, constraints.top_up(prefix(longest), -order))
