"""Tests of recalibration and scoring against NumPy."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import measure_compensation
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  AdaptationConfig,
  Evaluator,
  Weights,
  adaptation_batches,
  recalibrate,
  running_momentum,
  score_mask,
  score_outputs,
)
from gatprune_jax.networks import CLASSIFICATION, Network, compact_network
from gatprune_jax.runtime.maps import equal_blocks, first_rows
from tests.conftest import Example


def test_scores_of_logits_by_hand():
  # Equal logits over 4 classes have the cross-entropy log 4, and the first class is predicted.
  logits = jnp.array([[0.0, 0, 0, 0], [0, 100, 0, 0]])
  score = score_outputs(CLASSIFICATION, logits, jnp.array([1, 1]))
  assert score.score.tolist() == [0.0, 1.0]
  np.testing.assert_allclose(score.loss, [np.log(4), 0], atol=1e-6)


def test_momentum_is_measured(example_b):
  momentum = running_momentum(example_b.network, example_b.x)
  assert len(momentum) == len(jax.tree.leaves(example_b.variables["batch_stats"]))
  for leaf in momentum:
    np.testing.assert_allclose(leaf, 0.9, atol=1e-5)  # the momentum of the module


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_recalibrated_statistics_are_means_over_batches(example_b, backend, monkeypatch):
  momentum = running_momentum(example_b.network, example_b.x)
  batches = example_b.x.reshape(3, 4, *example_b.x.shape[1:])
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  new = recalibrate(example_b.network, momentum, example_b.variables, batches)
  # The input of the stem's batch norm is the output of the first convolution, recomputed here.
  kernel = example_b.variables["params"]["stem"]["kernel"]
  out = np.asarray(
    jax.lax.conv_general_dilated(
      example_b.x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
  )
  out = out.reshape(3, 4, *out.shape[1:])
  stats = new["batch_stats"]["norm_stem"]
  np.testing.assert_allclose(stats["mean"], out.mean((1, 2, 3)).mean(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(stats["var"], out.var((1, 2, 3)).mean(0), rtol=1e-4)
  for own, dense in zip(*(jax.tree.leaves(v["params"]) for v in (new, example_b.variables)),
                        strict=True):  # fmt: skip
    assert own is dense


def test_collections_that_training_does_not_update_stay(example_b):
  # The network multiplies images by 2, a constant, so the recalibrated mean is that of 2 x.
  def train_fn(variables, x):
    x = variables["constants"]["scale"] * x
    mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * x.mean((0, 1, 2))
    return x, {"batch_stats": {"mean": mean}}

  x = example_b.x
  variables = {
    "params": {}, "constants": {"scale": jnp.array(2.0)}, "batch_stats": {"mean": jnp.ones(2)},
  }  # fmt: skip
  network = Network(None, train_fn, variables)
  momentum = running_momentum(network, x)
  measured, constant = momentum  # in the order of the leaves of `variables`
  np.testing.assert_allclose(measured, 0.9, rtol=1e-5)
  assert constant is None
  new = recalibrate(network, momentum, variables, x[None])
  np.testing.assert_allclose(new["batch_stats"]["mean"], 2 * x.mean((0, 1, 2)), rtol=1e-4)
  assert new["constants"]["scale"] == 2


class FrozenFirst(nn.Module):
  """A batch norm that train mode does not update, then a batch norm that train mode updates."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(4)(nn.BatchNorm(use_running_average=True, name="frozen")(x))
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="live")(x)


def test_frozen_statistics_stay_and_disturb_no_others():
  e = Example(FrozenFirst(), shape=(3,))
  momentum = running_momentum(e.network, e.x)
  assert momentum[:2] == (None, None)  # "frozen" comes before "live"
  np.testing.assert_allclose(momentum[2:], 0.9, atol=1e-5)
  batches = e.x.reshape(2, 6, 3)
  new = recalibrate(e.network, momentum, e.variables, batches)["batch_stats"]
  own = jax.tree.map(np.asarray, e.variables)
  frozen, params = own["batch_stats"]["frozen"], own["params"]
  jax.tree.map(np.testing.assert_array_equal, new["frozen"], frozen)
  out = (batches - frozen["mean"]) / np.sqrt(frozen["var"] + 1e-5)
  out = out * params["frozen"]["scale"] + params["frozen"]["bias"]
  out = out @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
  np.testing.assert_allclose(new["live"]["mean"], out.mean(1).mean(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(new["live"]["var"], out.var(1).mean(0), rtol=1e-4)


def test_a_counter_is_no_mean_of_batches():
  def train_fn(variables, x):
    stats = variables["batch_stats"]
    mean = 0.75 * stats["mean"] + 0.25 * x.mean()
    return x, {"batch_stats": {"mean": mean, "count": stats["count"] + 1}}

  variables = {"params": {}, "batch_stats": {"mean": jnp.ones(()), "count": jnp.array(7)}}
  x = jnp.arange(4.0)[:, None]
  network = Network(None, train_fn, variables)
  momentum = running_momentum(network, x)
  new = recalibrate(network, momentum, variables, x[None])["batch_stats"]
  assert (new["mean"], new["count"]) == (1.5, 7)


def test_a_recalibrated_network_evaluates_as_it_trains(example_b):
  # With the statistics of a batch, eval mode on that batch equals train mode.
  momentum = running_momentum(example_b.network, example_b.x)
  new = recalibrate(example_b.network, momentum, example_b.variables, example_b.x[None])
  logits, _ = example_b.train_fn(example_b.variables, example_b.x)
  np.testing.assert_allclose(example_b.eval_fn(new, example_b.x), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compensated", [False, True])
def test_scores_of_masks_are_those_of_compact_networks(example_b, compensated):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  nothing = adaptation_batches(AdaptationConfig(0, 1, 1.0), Split(e.x, e.y), e.network)
  momentum = running_momentum(e.network, e.x)
  calibration = equal_blocks(e.x[:8], 4)
  compensation = measure_compensation(graph, e.eval_fn, e.variables, e.x) if compensated else None
  weights = Weights(e.variables, momentum, nothing, calibration, compensation)
  rng = np.random.default_rng(0)
  masks = rng.random((5, graph.num_channels)) < 0.7
  masks[:, [group.channels[0] for group in graph.groups]] = True
  score = lambda mask: score_mask(graph, e.network, CLASSIFICATION, weights, mask, e.x, e.y)
  # Five masks in chunks of two leave the last chunk incomplete.
  together = jax.jit(lambda masks: first_rows(score, masks, len(masks), 2))(masks)
  for index, mask in enumerate(masks):
    images = e.x if compensated else None
    small = gp.compact(graph, e.eval_fn, e.variables, mask, images=images)
    small = compact_network(graph, e.network, mask).with_variables(small.variables)
    variables = recalibrate(small, momentum, small.variables, calibration)
    expected = score_outputs(CLASSIFICATION, small.eval_fn(variables, e.x), e.y)
    np.testing.assert_allclose(together.loss[index], expected.loss, atol=1e-3)
    np.testing.assert_array_equal(together.score[index], expected.score)


def test_an_evaluator_scores_as_score_mask_does_by_one_program(two_layers):
  e, traces = two_layers, []

  def counted(variables, x):
    traces.append(1)  # runs when JAX traces the network, not when the network runs
    return e.train_fn(variables, x)

  network = Network(e.eval_fn, counted, e.variables)
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  evaluator = Evaluator(
    graph, network, CLASSIFICATION, Split(e.x, e.y), compensation_ridge=1e-3,
    adaptation=AdaptationConfig(2, 4, 0.1), calibration_images=8, calibration_batch=4,
    num_images=8, samples=2,
  )  # fmt: skip
  masks = np.arange(graph.num_channels) % np.array([[3], [4], [5]]) > 0
  score = jax.jit(
    lambda mask: score_mask(graph, network, CLASSIFICATION, evaluator.weights, mask, e.x, e.y)
  )
  expected = [score(mask) for mask in masks]
  traced = []
  # Three masks take two calls of two masks each, and the smaller split is filled up.
  for num in (8, 5):
    found = evaluator.scores(masks, evaluator.place(Split(e.x[:num], e.y[:num])))
    traced.append(len(traces))
    for index, of_mask in enumerate(expected):
      for rows, other in zip(found, of_mask, strict=True):
        assert rows.shape == (3, num)
        np.testing.assert_allclose(rows[index], other[:num], rtol=1e-4, atol=1e-5)
  assert traced[0] == traced[1]
