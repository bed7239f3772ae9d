"""Tests of random search and evolution: scored masks are feasible, distinct and counted exactly."""

import itertools

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import Classical, allocate
from gatprune_jax.search import Terms, search_without_learning

WIDTHS = (5, 4, 3)


def make_terms():
  """Returns the terms of a search in a chain of dense layers.

  The chain has twelve channels, of which masks may keep at most half of the MACs.
  """
  sizes = (3, *WIDTHS, 2)
  variables = [np.ones(pair, np.float32) for pair in itertools.pairwise(sizes)]

  def fn(v, x):
    for kernel in v:
      x = x @ kernel
    return x

  graph = gp.trace(fn, variables, np.ones((1, 3), np.float32))
  constraints = make_constraints(graph, {"macs": 0.5}, 0.0)
  order = np.arange(12)[::-1].copy()
  mask = allocate(constraints, order)
  return Terms(constraints, Classical("l1", order, mask), Score()(mask[None])[0])


@pytest.fixture(scope="module")
def terms():
  return make_terms()


class Score:
  """A score that adds a random value for each pair of kept channels; it records the masks."""

  def __init__(self):
    values = np.random.default_rng(1).standard_normal((12, 12))
    self.values, self.asked = values + 3 * np.diag(np.abs(values).sum(0) / 12), []

  def __call__(self, masks):
    self.asked.append(masks)
    return np.einsum("bi,ij,bj->b", masks, self.values, masks)


def feasible_masks(terms):
  everything = np.array(list(itertools.product([False, True], repeat=12)))
  wide = np.stack([everything[:, g.channels].any(1) for g in terms.constraints.graph.groups]).all(0)
  return everything[wide & np.array([terms.constraints.feasible(mask) for mask in everything])]


@pytest.mark.parametrize(
  ("strategy", "num_masks"), [("evolve_bits", 21), ("random_ratios", 5), ("evolve_ratios", 5)]
)
def test_exactly_as_many_distinct_feasible_masks_as_asked_for(strategy, num_masks, terms):
  score = Score()
  found = search_without_learning(strategy, terms, score, num_masks, 4, 2, seed=0)
  whole, left = divmod(num_masks, 4)
  assert [len(masks) for masks in score.asked] == [4] * whole + [left] * (left > 0)
  assert len(np.unique(found.masks, axis=0)) == len(found.masks) == num_masks
  assert not (found.masks == terms.best.mask).all(1).any()
  for mask in found.masks:
    assert terms.constraints.feasible(mask)
    assert all(mask[group.channels].any() for group in terms.constraints.graph.groups)
  np.testing.assert_allclose(found.scores, score(found.masks))
  assert (np.diff(found.scores) <= 0).all()
  again = search_without_learning(strategy, terms, Score(), num_masks, 4, 2, seed=0)
  np.testing.assert_array_equal(again.masks, found.masks)


def test_evolution_of_bits_comes_within_one_percent_of_the_best_of_all_masks(terms):
  # The search scores 200 of the 517 masks to which no channel can be added. The optimum is found by
  # enumeration.
  optimum = Score()(feasible_masks(terms)).max()
  for seed in range(5):
    found = search_without_learning("evolve_bits", terms, Score(), 200, 8, 4, seed)
    assert found.scores[0] >= 0.99 * optimum


def test_ratios_keep_the_first_of_each_group_in_the_classical_order(terms):
  # Channels of a group cost the same, so topping up to the budget follows the order too. The
  # classical order here is the reverse of the channels' numbers.
  found = search_without_learning("random_ratios", terms, Score(), 5, 5, 1, seed=2)
  for mask in found.masks:
    for group in terms.constraints.graph.groups:
      width = mask[group.channels].sum()
      assert mask[group.channels[-width:]].all()


def test_the_classical_mask_stays_a_parent_while_it_is_the_best(terms):
  # No mask scores as high as the classical mask. Its children are nearer to it than the children of
  # other masks, so the mean score is higher while it stays a parent.
  best = terms.best.mask
  near = lambda masks: -(masks != best).sum(1).astype(float)
  terms = terms._replace(score=0.0)
  found = search_without_learning("evolve_bits", terms, near, 60, 4, 1, seed=0)
  late = search_without_learning("evolve_bits", terms._replace(score=-99.0), near, 60, 4, 1, seed=0)
  assert found.scores.mean() > late.scores.mean()


def test_it_ends_where_nothing_new_is_within_reach():
  # There is one group, so every ratio keeps the same channels.
  variables = {"a": np.ones((2, 4), np.float32), "b": np.ones((4, 2), np.float32)}
  graph = gp.trace(lambda v, x: x @ v["a"] @ v["b"], variables, np.ones((1, 2), np.float32))
  constraints = make_constraints(graph, {"macs": 0.5}, 0.0)
  best = Classical("l1", np.arange(4), np.array([True, True, False, False]))
  terms, asked = Terms(constraints, best, 0.0), []

  def score(masks):
    asked.extend(masks.tolist())
    return np.zeros(len(masks))

  found = search_without_learning("evolve_ratios", terms, score, 20, 4, 2, seed=0)
  assert found.masks.shape == (0, 4)
  assert asked == []
  # Bits can keep six different pairs of channels, of which one pair is known already.
  found = search_without_learning("evolve_bits", terms, score, 20, 4, 2, seed=0)
  assert sorted(asked) == sorted(found.masks.tolist())
  assert len(np.unique(found.masks, axis=0)) == len(found.masks) == 5


def test_an_unknown_search_is_refused(terms):
  with pytest.raises(gp.InputError, match="search 'annealing' is unknown: choose from random"):
    search_without_learning("annealing", terms, Score(), 5, 5, 1, seed=0)
