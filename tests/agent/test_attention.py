"""Two forms of attention over one set of edges, against NumPy in float64 and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.agent.attention import SLOPE, Partial, by_edge, by_sorting, merge


def random_set(rng, senders=9, receivers=7, heads=2, width=3, scale=1.0):
  draw = lambda *shape: (scale * rng.standard_normal(shape)).astype(np.float32)
  x = rng.standard_normal((senders, heads, width)).astype(np.float32)
  return draw(senders, heads), draw(receivers, heads), x


def oracle(sent, received, x, weight, norms):
  """Logarithm of the sum of exponentials `[R, H]`, and mean `[R, H, D]`, in float64."""
  sent, received, x, weight, norms = (
    np.asarray(a, np.float64) for a in (sent, received, x, weight, norms)
  )
  raw = sent[:, None] + received[None] + norms[..., None] * weight
  logits = np.where(raw >= 0, raw, SLOPE * raw)
  largest = logits.max(0)
  weights = np.exp(logits - largest[None])
  total = weights.sum(0)
  return largest + np.log(total), np.einsum("srh,shd->rhd", weights, x) / total[..., None]


def assert_close(partial, expected, tolerance=2e-6):
  log_sum, mean = expected
  with jax.numpy_rank_promotion("allow"):
    np.testing.assert_allclose(
      partial.largest + np.log(partial.total), log_sum, rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(
      partial.message / partial.total[..., None], mean, rtol=tolerance, atol=tolerance
    )


# Scores in the hundreds: all weights but one underflow, on both sides of zero.
@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
def test_both_forms_equal_the_formula(scale):
  rng = np.random.default_rng(0)
  sent, received, x = random_set(rng, scale=scale)
  weight = rng.standard_normal(2).astype(np.float32)
  norms = rng.standard_normal((9, 7)).astype(np.float32)
  assert_close(
    by_edge(sent, received, x, weight, norms), oracle(sent, received, x, weight, norms), 1e-5
  )
  plain = oracle(sent, received, x, weight, np.zeros((9, 7)))
  assert_close(by_edge(sent, received, x, weight, None), plain)
  assert_close(by_sorting(sent, received, x), plain)


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_sorting_holds_where_all_logits_are_on_one_side(shift):
  rng = np.random.default_rng(1)
  sent, received, x = random_set(rng)
  expected = oracle(sent, received + shift, x, np.zeros(2), np.zeros((9, 7)))
  assert_close(by_sorting(sent, received + np.float32(shift), x), expected, 1e-4)


def test_gradients_of_both_forms_are_equal_with_ties():
  rng = np.random.default_rng(2)
  _, _, x = random_set(rng)
  # Whole numbers: equal senders, and logits that are zero exactly, where the slope changes.
  sent = rng.integers(-2, 3, (9, 2)).astype(np.float32)
  received = rng.integers(-2, 3, (7, 2)).astype(np.float32)
  assert (sent[:, None] + received[None] == 0).any()
  weight = rng.standard_normal((7, 2, 3)).astype(np.float32)

  def loss(form):
    def of(sent, received, x):
      part = form(sent, received, x)
      mean = part.message / part.total[..., None]
      return (weight * mean).sum() + (part.largest + jnp.log(part.total)).sum()

    return jax.grad(of, argnums=(0, 1, 2))(sent, received, x)

  edges = loss(lambda *ends: by_edge(*ends, jnp.zeros(2), None))
  for one, other in zip(edges, loss(by_sorting), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("form", [lambda *a: by_edge(*a, jnp.zeros(2), None), by_sorting])
def test_a_sender_that_does_not_exist_has_no_weight(form):
  rng = np.random.default_rng(3)
  sent, received, x = random_set(rng)
  absent = sent.copy()
  absent[[2, 5]] = -np.inf
  kept = np.delete(np.arange(9), [2, 5])
  expected = oracle(sent[kept], received, x[kept], np.zeros(2), np.zeros((7, 7)))
  assert_close(form(absent, received, x), expected)
  nobody = form(np.full_like(sent, -np.inf), received, x)
  gradient = jax.grad(lambda r: sum(a.sum() for a in form(np.full_like(sent, -np.inf), r, x)))
  assert np.isfinite(gradient(received)).all()
  np.testing.assert_array_equal(nobody.total, 0)
  np.testing.assert_array_equal(nobody.message, 0)


def test_merged_parts_are_the_whole():
  rng = np.random.default_rng(4)
  sent, received, x = random_set(rng, receivers=9, scale=5.0)
  own = Partial(jnp.full((9, 2), -100.0), jnp.zeros((9, 2)), jnp.zeros((9, 2, 3)))
  everyone = np.arange(9)
  parts = [
    (everyone, by_sorting(sent[part], received, x[part])) for part in np.split(everyone, [1, 4])
  ]
  _, mean = oracle(sent, received, x, np.zeros(2), np.zeros((9, 9)))
  np.testing.assert_allclose(merge(own, parts), mean, atol=2e-6)
