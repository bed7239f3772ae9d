"""Tests of the critic against NumPy and against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import (
  CriticConfig,
  Surrogate,
  counterfactual_advantages,
  fit_surrogate,
)

RIDGES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


def data(rng, rows=30, channels=8):
  masks = rng.random((rows, channels)) < 0.6
  return masks, (masks @ rng.standard_normal(channels) + 0.3 * rng.standard_normal(rows))


def ridge_by_normal_equations(masks, rewards, features, prior, ridge):
  """Returns the posterior mean of the weights `[N]`, in the primal form and in float64.

  Args:
    masks: `[W, N]` bool.
    rewards: `[W]`.
    features: `[N, D]`.
    prior: prior variance of weights along the features.
    ridge: the ridge penalty.
  """
  z, y = masks - masks.mean(0), (rewards - rewards.mean()) / rewards.std()
  covariance = np.eye(masks.shape[1]) + prior * features @ features.T
  return np.linalg.solve(z.T @ z + ridge * np.linalg.inv(covariance), z.T @ y) * rewards.std()


@pytest.mark.parametrize("prior", [0.0, 0.5])
def test_weights_by_normal_equations_and_the_ridge_by_leaving_rows_out(prior):
  rng = np.random.default_rng(0)
  masks, rewards = data(rng)
  features = rng.standard_normal((8, 3))
  found = fit_surrogate(
    jnp.asarray(masks), jnp.asarray(rewards, jnp.float32), jnp.ones(30, bool),
    jnp.asarray(features, jnp.float32), prior,
  )  # fmt: skip
  # The leave-one-out error is computed by its definition: each row is left out and the rest is
  # refitted. The means of the whole batch are kept.
  z, y = masks - masks.mean(0), (rewards - rewards.mean()) / rewards.std()
  kernel = z @ (np.eye(8) + prior * features @ features.T) @ z.T

  def left_out_error(ridge):
    errors = []
    for row in range(30):
      rest = np.arange(30) != row
      dual = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(29), y[rest])
      errors.append(y[row] - kernel[row, rest] @ dual)
    return np.square(errors).sum()

  ridge = min(RIDGES, key=left_out_error)
  expected = ridge_by_normal_equations(masks, rewards, features, prior, ridge)
  np.testing.assert_allclose(found.weights, expected, rtol=2e-3, atol=2e-4)
  np.testing.assert_allclose(found(jnp.asarray(masks.mean(0))), rewards.mean(), rtol=1e-4)


def test_many_equal_rows_leave_it_finite_and_exact():
  # The kernel is singular, with eigenvalues up to the thousands.
  rng = np.random.default_rng(4)
  masks, rewards = data(rng, rows=64, channels=1024)
  masks, rewards = np.tile(masks, (4, 1)), np.tile(rewards, 4)
  features = rng.standard_normal((1024, 6))
  found = fit_surrogate(
    jnp.asarray(masks), jnp.asarray(rewards, jnp.float32), jnp.ones(256, bool),
    jnp.asarray(features, jnp.float32), 0.5,
  )  # fmt: skip
  expected = [ridge_by_normal_equations(masks, rewards, features, 0.5, ridge) for ridge in RIDGES]
  error = [np.abs(found.weights - weights).max() / np.abs(weights).max() for weights in expected]
  assert min(error) < 1e-3


def test_rows_that_are_not_valid_do_not_count():
  rng = np.random.default_rng(1)
  masks, rewards = data(rng)
  features = jnp.zeros((8, 1))
  few = fit_surrogate(jnp.asarray(masks[:20]), jnp.asarray(rewards[:20]), jnp.ones(20, bool),
                      features, 0.0)  # fmt: skip
  rewards[20:] = 1e3
  filled = fit_surrogate(jnp.asarray(masks), jnp.asarray(rewards), jnp.arange(30) < 20,
                         features, 0.0)  # fmt: skip
  for one, other in zip(few, filled, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_noise_is_not_explained():
  rng = np.random.default_rng(2)
  masks, _ = data(rng, rows=60)
  rewards = jnp.asarray(rng.standard_normal(60), jnp.float32)
  surrogate = fit_surrogate(jnp.asarray(masks), rewards, jnp.ones(60, bool), jnp.zeros((8, 1)), 0.0)
  assert jnp.var(surrogate(jnp.asarray(masks))) < 0.1 * jnp.var(rewards)


def gradient(utility, bits, probabilities, surrogate, alpha):
  """Returns the estimate of d E[U] / d logits `[N]` from a batch, on the scale of U.

  Args:
    utility: U, `[B]`.
    bits: the samples, `[B, N]`.
    probabilities: probability that each bit is 1, `[B, N]`.
    surrogate: the surrogate of the utility.
    alpha: weight of the residual.
  """
  advantage = counterfactual_advantages(utility, bits, probabilities, surrogate, alpha)
  # `counterfactual_advantages` divides by a root mean square that depends on the batch. The factor
  # `scale` undoes that division.
  num = len(utility)
  residual = utility - surrogate(bits)
  residual = (residual - residual.mean()) * (num / (num - 1))
  raw = alpha * residual[:, None] + surrogate.weights[None] * (bits - probabilities)
  scale = jnp.sqrt((raw**2).mean())
  return (scale * advantage * (bits - probabilities)).mean(0)


@pytest.mark.parametrize("quality", ["exact", "useless"])
def test_the_gradient_is_unbiased_by_enumeration(quality):
  # The test enumerates all pairs of samples of three bits. The utility has products of bits, which
  # the linear surrogate cannot represent.
  probabilities = np.array([0.3, 0.6, 0.8])
  every = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
  chance = np.prod(np.where(every == 1, probabilities, 1 - probabilities), axis=1)
  utility = every @ [1.0, -2, 0.5] + 3 * every[:, 0] * every[:, 1] + every.prod(1)
  weights = [1.0 + 3 * 0.6 + 0.48, -2 + 3 * 0.3 + 0.24, 0.5 + 0.18]
  weights = weights if quality == "exact" else [5.0, 5, 5]
  surrogate = Surrogate(jnp.array(weights), jnp.asarray(probabilities), jnp.zeros(()))
  expected = ((chance * utility)[:, None] * (every - probabilities)).sum(0)

  total = np.zeros(3)
  estimate = jax.jit(lambda u, b: gradient(u, b, jnp.tile(probabilities, (2, 1)), surrogate, 1.0))
  for i, j in itertools.product(range(8), repeat=2):
    # Two equal samples have equal residuals, which the leave-one-out mean cancels. Only the
    # surrogate's term w (x - p) is left, so the second branch adds its gradient directly.
    if i != j:
      pair = jnp.array([i, j])
      total += (
        chance[i] * chance[j] * estimate(jnp.asarray(utility)[pair], jnp.asarray(every)[pair])
      )
    else:
      own = surrogate.weights * (every[i] - probabilities) ** 2
      total += chance[i] ** 2 * np.asarray(own)
  np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_an_exact_surrogate_leaves_only_what_each_bit_does():
  rng = np.random.default_rng(3)
  bits = jnp.asarray(rng.random((6, 4)) < 0.5, jnp.float32)
  probabilities, weights = jnp.full((6, 4), 0.5), jnp.array([3.0, 0, -1, 0])
  surrogate = Surrogate(weights, jnp.full(4, 0.5), jnp.asarray(2.0))
  advantage = counterfactual_advantages(surrogate(bits), bits, probabilities, surrogate, 1.0)
  np.testing.assert_allclose(advantage[:, [1, 3]], 0, atol=1e-5)
  np.testing.assert_allclose((advantage**2).mean(), 1, rtol=1e-5)
  np.testing.assert_array_equal(jnp.sign(advantage[:, 0]), jnp.sign(bits[:, 0] - 0.5))


def test_impossible_settings_are_refused():
  with pytest.raises(gp.InputError, match=r"critic residual_weight is -1\.0"):
    CriticConfig(512, 0.1, -1.0)
