"""Tests of exchanges of two channels, on a chain of dense layers."""

import itertools

import numpy as np

from gatprune_jax.search.refinement import neighbours, refine
from tests.search.baselines.test_equal_budget import Score, feasible_masks, make_terms


def test_neighbours_are_feasible_and_begin_with_the_likeliest_exchange():
  terms = make_terms()
  graph, mask = terms.constraints.graph, terms.best.mask
  logits = np.linspace(-1, 1, 12)
  children = list(neighbours(terms.constraints, mask, logits))
  assert len(children) == mask.sum() * (~mask).sum()
  for child in children:
    assert terms.constraints.feasible(child)
    assert all(child[group.channels].any() for group in graph.groups)
  out, into = np.flatnonzero(mask)[0], np.flatnonzero(~mask)[-1]  # lowest kept, highest removed
  assert not children[0][out]
  assert children[0][into]


def test_it_stops_where_no_neighbour_improves():
  terms, score = make_terms(), Score()
  logits = np.zeros(12)
  around = lambda mask: neighbours(terms.constraints, mask, logits)
  value = lambda mask: score(mask[None])[0]
  for start in feasible_masks(terms)[::200]:
    mask = refine(around, score, start, value(start), set(), 10_000, 8)
    assert value(mask) >= max(value(child) for child in around(mask))


def test_it_scores_no_more_than_asked_and_nothing_known():
  terms, score = make_terms(), Score()
  around = lambda mask: neighbours(terms.constraints, mask, np.zeros(12))
  first = list(itertools.islice(around(terms.best.mask), 3))
  known = {mask.tobytes() for mask in first}

  def score_and_remember(masks):
    assert not known & {mask.tobytes() for mask in masks}
    known.update(mask.tobytes() for mask in masks)
    return score(masks)

  refine(around, score_and_remember, terms.best.mask, np.inf, known, 7, 4)
  assert [len(masks) for masks in score.asked] == [4, 3]
  assert len(known) == 3 + 7
