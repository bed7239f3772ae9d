"""Tests of two forms of attention over sets of edges and their gradients, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.kernels.attention.softmax import (
  SLOPE,
  Receivers,
  by_edge,
  by_edge_gradient,
  by_sorting,
  by_sorting_gradient,
)

SETS, HEADS, SENDERS, RECEIVERS, WIDTH = 2, 3, 9, 7, 4
NO_WEIGHT = np.zeros(HEADS, np.float32)


def normal(rng, *shape):
  return rng.standard_normal(shape).astype(np.float32)


def random_ends(rng, scale=1.0):
  """Returns the scores of senders `[K, H, S]` and receivers `[K, H, R]`, and x `[K, H, S, D]`."""
  sent, received = (normal(rng, SETS, HEADS, number) for number in (SENDERS, RECEIVERS))
  x = normal(rng, SETS, HEADS, SENDERS, WIDTH)
  return np.float32(scale) * sent, np.float32(scale) * received, x


def random_norms(rng):
  """Returns the weight of the norms, `[H]`, and the norms, `[K, S, R]`."""
  return normal(rng, HEADS), normal(rng, SETS, SENDERS, RECEIVERS)


def oracle(sent, received, x, weight=NO_WEIGHT, norms=0.0):
  """Computes the attention by its formula in float64.

  Args:
    sent: scores of senders, `[K, H, S]`.
    received: scores of receivers, `[K, H, R]`.
    x: values of senders, `[K, H, S, D]`.
    weight: weight of the norms, `[H]`.
    norms: `[K, S, R]`, or a scalar.

  Returns:
    Logarithm of the sum of exponentials `[K, H, R]`, and mean `[K, H, R, D]`.
  """
  norms = np.broadcast_to(norms, (SETS, sent.shape[-1], RECEIVERS))
  raw = np.asarray(sent, np.float64)[..., :, None] + received[..., None, :]
  raw = raw + np.einsum("h,ksr->khsr", weight, norms)
  logits = np.where(raw >= 0, raw, SLOPE * raw)
  largest = logits.max(2, keepdims=True)
  weights = np.exp(logits - largest)
  total = weights.sum(2)
  mean = np.einsum("khsr,khsd->khrd", weights, x) / total[..., None]
  return largest[:, :, 0] + np.log(total), mean


def assert_close(sums, expected, tolerance=2e-6):
  log_sum, mean = expected
  actual = sums.largest + np.log(sums.total), sums.message / np.expand_dims(sums.total, -2)
  np.testing.assert_allclose(actual[0], log_sum, rtol=tolerance, atol=tolerance)
  np.testing.assert_allclose(actual[1].swapaxes(-1, -2), mean, rtol=tolerance, atol=tolerance)


def receivers_of(d_mean, expected):
  """Returns the `Receivers` for a gradient, where all edges of a receiver are in one set."""
  log_total, mean = expected
  known = log_total, d_mean, (d_mean * mean).sum(-1)
  return Receivers(*(jnp.asarray(a, jnp.float32) for a in known))


def differences(loss, values, step=1e-5):
  """Returns central differences of a loss for each element of each array, in float64.

  Args:
    loss: a function of the arrays that returns a scalar.
    values: the arrays, of any shapes.
    step: half of the distance between the two evaluations.
  """
  gradients = []
  for i, value in enumerate(values):
    gradient = np.zeros(value.shape)
    for index in np.ndindex(value.shape):
      ends = []
      for sign in (1, -1):
        moved = [np.asarray(v, np.float64).copy() for v in values]
        moved[i][index] += sign * step
        ends.append(loss(*moved))
      gradient[index] = (ends[0] - ends[1]) / (2 * step)
    gradients.append(gradient)
  return gradients


def by_edge_without_norms(sent, received, x):
  return by_edge(sent, received, x, NO_WEIGHT, None)


def gradient_without_norms(sent, received, x, known):
  *gradients, d_weight = by_edge_gradient(sent, received, x, NO_WEIGHT, None, known)
  np.testing.assert_array_equal(d_weight, 0)
  return gradients


FORMS = {
  "by_edge": (by_edge_without_norms, gradient_without_norms),
  "by_sorting": (by_sorting, by_sorting_gradient),
}


# At the scale 300 the scores are in the hundreds, on both sides of zero, and all weights but one
# underflow.
@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
def test_both_forms_equal_the_formula(scale):
  rng = np.random.default_rng(0)
  ends, more = random_ends(rng, scale), random_norms(rng)
  assert_close(by_edge(*ends, *more), oracle(*ends, *more), 1e-5)
  plain = oracle(*ends)
  for sums_of, _ in FORMS.values():
    assert_close(sums_of(*ends), plain)


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_sorting_holds_where_all_logits_are_on_one_side(shift):
  sent, received, x = random_ends(np.random.default_rng(1))
  expected = oracle(sent, received + shift, x)
  assert_close(by_sorting(sent, received + np.float32(shift), x), expected, 1e-4)


def test_gradients_equal_finite_differences():
  rng = np.random.default_rng(2)
  ends, (weight, norms), d_mean = random_ends(rng), random_norms(rng), normal(rng, 2, 3, 7, 4)
  loss = lambda sent, received, x, weight: (
    d_mean * oracle(sent, received, x, weight, norms)[1]
  ).sum()
  known = receivers_of(d_mean, oracle(*ends, weight, norms))
  with_norms = by_edge_gradient(*ends, weight, norms, known)
  for ours, theirs in zip(with_norms, differences(loss, [*ends, weight]), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
  plain = lambda *ends: (d_mean * oracle(*ends)[1]).sum()
  known = receivers_of(d_mean, oracle(*ends))
  for ours, theirs in zip(by_sorting_gradient(*ends, known), differences(plain, ends), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradients_of_both_forms_are_equal_with_ties():
  rng = np.random.default_rng(3)
  x = random_ends(rng)[2]
  # The scores are whole numbers, so that senders are equal and some logits are exactly zero, where
  # the slope changes.
  sent, received = (
    rng.integers(-2, 3, (SETS, HEADS, number)).astype(np.float32) for number in (SENDERS, RECEIVERS)
  )
  assert (sent[..., :, None] + received[..., None, :] == 0).any()
  d_mean = normal(rng, SETS, HEADS, RECEIVERS, WIDTH)
  known = receivers_of(d_mean, oracle(sent, received, x))
  both = (gradient_of(sent, received, x, known) for _, gradient_of in FORMS.values())
  for one, other in zip(*both, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_who_does_not_exist_has_no_weight_and_no_gradient(form):
  sums_of, gradient_of = FORMS[form]
  rng = np.random.default_rng(4)
  sent, received, x = random_ends(rng)
  absent = sent.copy()
  absent[..., [2, 5]] = -np.inf
  kept = np.delete(np.arange(SENDERS), [2, 5])
  expected = oracle(sent[..., kept], received, x[..., kept, :])
  assert_close(sums_of(absent, received, x), expected)

  known = receivers_of(normal(rng, SETS, HEADS, RECEIVERS, WIDTH), expected)
  known = known._replace(log_total=known.log_total.at[..., 3].set(jnp.inf))
  d_sent, d_received, d_x = gradient_of(absent, received, x, known)
  np.testing.assert_array_equal(d_sent[..., [2, 5]], 0)
  np.testing.assert_array_equal(d_x[..., [2, 5], :], 0)
  np.testing.assert_array_equal(d_received[..., 3], 0)
  assert all(np.isfinite(gradient).all() for gradient in (d_sent, d_received, d_x))


@pytest.mark.parametrize("form", FORMS)
def test_sums_over_nobody_are_zero(form):
  sums_of, gradient_of = FORMS[form]
  rng = np.random.default_rng(5)
  sent, received, x = random_ends(rng)
  known = receivers_of(normal(rng, SETS, HEADS, RECEIVERS, WIDTH), oracle(sent, received, x))
  nobody = np.full_like(sent, -np.inf)
  sums = sums_of(nobody, received, x)
  np.testing.assert_array_equal(sums.total, 0)
  np.testing.assert_array_equal(sums.message, 0)
  for gradient in gradient_of(nobody, received, x, known):
    np.testing.assert_array_equal(gradient, 0)
