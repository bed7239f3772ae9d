"""Tests of `Products` against counts element by element, and of the moments of a peak."""

import jax
import numpy as np
import pytest

from gatprune_jax.channels.costs.resources.activation_bytes import dominant_rows
from gatprune_jax.channels.costs.resources.products import products

N = 9


@pytest.fixture(params=range(4))
def terms(request):
  """Random terms of up to three axes, on which channels, and elements of none, repeat."""
  rng = np.random.default_rng(request.param)
  axis = lambda: rng.integers(-1, N - 1, rng.integers(1, 7))  # channel N - 1 occurs nowhere
  twins = np.array([0, 0, 1, 1, 2])  # channels 0 and 1 are of one kind here, and 2 of another
  found = [(float(rng.integers(1, 9)), [axis() for _ in range(k)]) for k in (2, 0, 3, 1)]
  return [*found, (2.0, [twins, axis()])]


def plain(terms, mask):
  """Returns the count of every term, element by element, float64 `[L]`."""
  keep = np.append(mask, 1.0)  # id -1 is this entry
  return np.array([value * np.prod([keep[ids].sum() for ids in axes]) for value, axes in terms])


def masks():
  rng = np.random.default_rng(7)
  return [np.ones(N), np.zeros(N), *(rng.random((4, N)) < 0.5), rng.random(N)]


def test_counts_are_those_of_the_elements_one_by_one(terms):
  made = products(N, terms)
  for mask in masks():
    np.testing.assert_allclose(made.of(mask), plain(terms, mask), rtol=1e-15)
    # The products are an argument, so that their arrays are traced as well.
    traced = jax.jit(lambda made, mask: made.of(mask))(made, mask)
    assert traced.dtype == np.float32
    np.testing.assert_allclose(traced, plain(terms, mask), rtol=1e-6)


def test_many_masks_at_once_are_counted_as_one_by_one(terms):
  made, many = products(N, terms), np.stack(masks())
  traced = jax.jit(lambda made, many: jax.vmap(made.of)(many))(made, many)
  np.testing.assert_allclose(traced, [made.of(mask) for mask in many], rtol=1e-6)


def test_what_one_more_channel_changes(terms):
  made = products(N, terms)
  for mask in masks()[1:-1]:
    counts, change = made.with_one_more(mask.astype(bool))
    np.testing.assert_array_equal(counts, plain(terms, mask))
    for channel in np.flatnonzero(mask == 0):
      grown = counts.copy()
      of_channel = made.kind == made.kind_of[channel]
      grown[made.term[of_channel]] += change[of_channel]
      np.testing.assert_array_equal(grown, plain(terms, mask + (np.arange(N) == channel)))


def test_what_removing_a_set_changes(terms):
  made, sets = products(N, terms), [np.array(ids) for ids in ([0], [1, 2, 8], range(N), [8])]
  counts, changes = made.without_each(sets)
  for channels, (changed, change) in zip(sets, changes, strict=True):
    fewer, mask = counts.copy(), np.ones(N)
    fewer[changed] += change
    mask[channels] = 0
    np.testing.assert_array_equal(fewer, plain(terms, mask))


def test_channels_of_one_kind_are_counted_together():
  # Of six channels the even ones occur on the first axis and the odd ones, twice each, on both.
  odd, even = np.array([1, 3, 5]), np.array([0, 2, 4])
  made = products(6, [(10.0, [np.concatenate([even, odd, odd]), odd])])
  assert made.kind_of.tolist() == [0, 1, 0, 1, 0, 1]
  assert made.times.tolist() == [[1, 0], [2, 1]]


def chain(length):
  """Returns the products of a network of layers of four channels that follow one another."""
  axis = lambda k: np.arange(4 * k, 4 * k + 4)
  return products(4 * length + 4, [(1.0, [axis(k), axis(k + 1)]) for k in range(length)])


def test_the_size_grows_with_the_network_and_not_with_its_square():
  size = lambda made: sum(leaf.size for leaf in jax.tree.leaves(made))
  short, long = size(chain(20)), size(chain(40))
  # The first layer's inputs and the last one's outputs are what two chains have more than one.
  assert long <= 2 * short


def test_no_terms_cost_nothing():
  made = products(3, [])
  assert made.of(np.ones(3)).shape == (0,)
  assert jax.jit(made.of)(np.ones(3)).shape == (0,)


def test_only_moments_that_no_other_exceeds_are_kept():
  rng = np.random.default_rng(0)
  for _ in range(20):
    alive = np.unique(rng.integers(0, 3, (12, 4)) + np.eye(1, 4, dtype=int), axis=0)
    exceeded = [
      any((other >= row).all() and (other > row).any() for other in alive) for row in alive
    ]
    kept = dominant_rows(alive)
    np.testing.assert_array_equal(kept, alive[~np.array(exceeded)])
