"""Tests of losses and scores, by hand and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.networks.task import (
  CLASSIFICATION,
  check_task,
  cross_entropy,
  smoothed_cross_entropy,
  softened_cross_entropy,
  squared_difference,
)

LOGITS = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
LABELS = jnp.array([0, 1, 2, 3, 0, 1])


def test_cross_entropy_is_optax_own():
  ours = cross_entropy(LOGITS, LABELS)
  theirs = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  gradient = jax.grad(lambda logits: cross_entropy(logits, LABELS).sum())(LOGITS)
  np.testing.assert_allclose(
    gradient, jax.nn.softmax(LOGITS) - jax.nn.one_hot(LABELS, 4), atol=1e-6
  )
  np.testing.assert_allclose(smoothed_cross_entropy(LOGITS, LABELS, 0.0), ours, rtol=1e-6)


def test_a_logit_of_minus_infinity_costs_nothing_where_it_is_not_the_label():
  logits = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]])
  assert cross_entropy(logits, jnp.array([0, 0])).tolist() == [0.0, np.inf]


def test_smoothed_and_softened_cross_entropy_by_hand():
  # Even logits cost log 2 whatever the target is. A share of 0.2 makes the targets 0.9 and 0.1.
  even = jnp.zeros((1, 2))
  assert smoothed_cross_entropy(even, jnp.array([0]), 0.2)[0] == pytest.approx(np.log(2))
  steep = jnp.array([[np.log(3), 0.0]])  # the softmax is 3/4, 1/4
  expected = -(0.9 * np.log(3 / 4) + 0.1 * np.log(1 / 4))
  assert smoothed_cross_entropy(steep, jnp.array([0]), 0.2)[0] == pytest.approx(expected, rel=1e-5)
  # At temperature T = 2 the teacher (2 log 3, 0) has the softmax 3/4, 1/4. Even logits cost
  # log 2 T^2.
  teacher = jnp.array([[2 * np.log(3), 0.0]])
  assert softened_cross_entropy(even, teacher, 2.0)[0] == pytest.approx(4 * np.log(2), rel=1e-5)


def test_squared_differences_of_any_outputs_by_hand():
  # The result is the mean of (1, 4) plus the mean of 9. Integers do not count.
  own = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([3.0]), "index": jnp.array([7])}
  other = {"a": jnp.zeros((1, 2)), "b": jnp.zeros(1), "index": jnp.array([0])}
  assert squared_difference(own, other, 1.0).tolist() == [2.5 + 9.0]


def test_labels_are_smoothed_where_the_task_knows_how():
  loss = CLASSIFICATION.training_loss(0.2)
  expected = smoothed_cross_entropy(LOGITS, LABELS, 0.2)
  np.testing.assert_array_equal(loss(LOGITS, LABELS), expected)
  task = gp.Task(loss=lambda out, y: out, score=lambda out, y: out)
  assert task.training_loss(0.0) is task.loss
  with pytest.raises(gp.InputError, match=r"label_smoothing is 0.1, but the task has no"):
    task.training_loss(0.1)


@pytest.mark.parametrize(
  ("outputs", "targets", "words"),
  [
    ({"a": LOGITS}, LABELS, "the network's outputs have shape .*: classification needs logits"),
    (LOGITS[:, None], LABELS, "classification needs logits"),
    (LOGITS, LABELS[:, None], r"y is int32\[6, 1\]: classification needs one integer label"),
    (LOGITS, -LABELS, "y has label -3, which is out of range: .* 4 logits stand for labels 0 to 3"),
    (LOGITS * jnp.inf, LABELS, "loss of the dense network is NaN or infinite on 6 of 6 examples"),
  ],
)
def test_what_is_no_classification_is_refused(outputs, targets, words):
  with pytest.raises(gp.InputError, match=words):
    check_task(CLASSIFICATION, outputs, targets)
