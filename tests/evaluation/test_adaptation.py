"""Tests of training steps before scoring, against NumPy and against compact networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  AdaptationBatches,
  AdaptationConfig,
  Weights,
  adapt,
  adaptation_batches,
  recalibrate,
  running_momentum,
  score_mask,
  score_outputs,
)
from gatprune_jax.networks import CLASSIFICATION, Network, compact_network


def test_steps_are_nesterovs_on_softmax_regression():
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((3, 4, 5)), rng.integers(0, 6, (3, 4))
  weights = rng.standard_normal((5, 6))
  train_fn = lambda v, x: (x @ v["params"], {})
  taught = rng.standard_normal((3, 4, 6))
  arrays = jnp.asarray(x, jnp.float32), jnp.asarray(y), jnp.asarray(taught, jnp.float32)
  adaptation = AdaptationBatches(*arrays, 0.1, 0.75)
  network = Network(None, train_fn, {"params": jnp.asarray(weights, jnp.float32)})
  adapted = adapt(network, CLASSIFICATION, network.variables, adaptation)["params"]

  velocity = np.zeros_like(weights)
  softmax = lambda logits: np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  for step, (images, labels, teacher) in enumerate(zip(x, y, taught, strict=True)):
    logits = images @ weights
    # The gradient of T^2 times the cross-entropy of softmax(teacher / T) and softmax(logits / T) is
    # T times the difference of both, here with T = 2.
    to_targets = softmax(logits) - np.eye(6)[labels]
    to_teacher = 2 * (softmax(logits / 2) - softmax(teacher / 2))
    gradient = images.T @ (0.25 * to_targets + 0.75 * to_teacher) / len(labels)
    velocity = 0.9 * velocity + gradient
    weights = weights - 0.1 * (1 - step / 3) * (gradient + 0.9 * velocity)
  np.testing.assert_allclose(adapted, weights, atol=1e-5)


def test_adaptation_holds_the_first_batches():
  train = Split(np.arange(10.0).reshape(5, 2), np.arange(5))
  network = Network(lambda v, x: x * v["params"][None], None, {"params": jnp.array([2.0, 3.0])})
  adaptation = adaptation_batches(AdaptationConfig(2, 2, 0.5), train, network)
  assert adaptation.x.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
  assert adaptation.y.tolist() == [[0, 1], [2, 3]]
  assert adaptation.teacher.tolist() == [[[0, 3], [4, 9]], [[8, 15], [12, 21]]]
  nothing = adaptation_batches(AdaptationConfig(0, 2, 0.5), train, network)
  assert adapt(None, CLASSIFICATION, network.variables, nothing) is network.variables
  # The sixth image is the first one again.
  around = adaptation_batches(AdaptationConfig(3, 2, 0.5), train, network)
  assert around.x[2].tolist() == [[8, 9], [0, 1]]
  assert around.y[2].tolist() == [4, 0]


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ((-1, 2, 0.5), "steps is -1"),
    ((1, 0, 0.5), "batch_size is 0"),
    ((1, 2, 0.0), "learning_rate is 0.0"),
    ((1, 2, 0.1, 1.5), "distillation is 1.5"),
  ],
)
def test_what_cannot_train_is_refused(values, words):
  with pytest.raises(gp.InputError, match=words):
    AdaptationConfig(*values)


def test_adapted_scores_are_those_of_compact_networks_that_trained(two_layers):
  e = two_layers
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  momentum = running_momentum(e.network, e.x)
  train = Split(e.x, e.y)
  adaptation = adaptation_batches(AdaptationConfig(2, 6, 0.05), train, e.network)
  masks = np.random.default_rng(0).random((3, graph.num_channels)) < 0.6
  masks[:, [group.channels[0] for group in graph.groups]] = True
  weights = lambda adaptation: Weights(e.variables, momentum, adaptation, e.x[None, :8])
  score = lambda mask, adaptation: score_mask(
    graph, e.network, CLASSIFICATION, weights(adaptation), mask, e.x, e.y
  )
  together = jax.jit(jax.vmap(score, (0, None)))(masks, adaptation)
  for index, mask in enumerate(masks):
    small = compact_network(graph, e.network, mask)
    variables = adapt(small, CLASSIFICATION, small.variables, adaptation)
    variables = recalibrate(small, momentum, variables, e.x[None, :8])
    expected = score_outputs(CLASSIFICATION, small.eval_fn(variables, e.x), e.y).loss
    np.testing.assert_allclose(together.loss[index], expected, atol=1e-3)
    nothing = adaptation_batches(AdaptationConfig(0, 6, 0.05), train, e.network)
    untrained = score(mask, nothing).loss
    assert np.abs(untrained - expected).max() > 0.1
