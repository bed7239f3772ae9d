"""Tests of exchanges of channels, on chains of dense layers."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax.channels import Deployment, make_constraints
from gatprune_jax.search.refinement import likeliest_first, neighbours, refine
from tests.channels.costs.latency_tables import table_of
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


def test_exchanges_come_in_the_order_of_their_likelihood():
  rng = np.random.default_rng(0)
  logits = rng.standard_normal(9)
  outs = [np.array([0]), np.array([1, 2]), np.array([3, 4, 5])]
  intos = [np.array([6]), np.array([7]), np.array([7, 8]), np.array([6, 7, 8])]
  gains = [logits[b].mean() - logits[a].mean() for a, b in likeliest_first(outs, intos, logits)]
  every = [logits[b].mean() - logits[a].mean() for a, b in itertools.product(outs, intos)]
  np.testing.assert_allclose(gains, sorted(every, reverse=True))
  assert list(likeliest_first(outs, [], logits)) == []


def test_where_blocks_count_widths_are_exchanged_in_turn_with_channels_of_a_group():
  variables = {"a": np.ones((3, 4)), "b": np.ones((4, 4)), "c": np.ones((4, 2))}
  fn = lambda v, x: jnp.tanh(jnp.tanh(x @ v["a"]) @ v["b"]) @ v["c"]
  graph = gp.trace(fn, variables, np.ones((1, 3)))
  table = table_of(graph, lambda _, widths: float(np.prod(widths)), block=2)
  # A network of widths a and b takes 3a + ab + 2b, and the dense one 36.
  deployment = Deployment(1, table)
  constraints = make_constraints(graph, {"latency": 24 / 36}, 0.0, deployment=deployment)
  mask = np.array([True, True, False, False, True, True, True, True])  # takes 22
  logits = np.array([3, 2, 1, 0.5, -1, -2, -0.5, 4])
  children = [np.flatnonzero(child).tolist() for child in neighbours(constraints, mask, logits)]
  # The likeliest exchange of widths takes the second group to two channels and the first one to
  # four, which takes 24. The likeliest exchange within a group is that of channels 1 and 2.
  assert children[:2] == [[0, 1, 2, 3, 6, 7], [0, 2, 4, 5, 6, 7]]
  # Three exchanges of widths: the first group to one channel, or the second to two or one, and
  # the first one to four; and four exchanges of channels in the first group.
  assert len(children) == 3 + 4


class Scored:
  """Scores masks by a function, and holds those that were scored."""

  def __init__(self, score, start):
    self.score, self.known = score, {}
    self(start[None])

  def __call__(self, masks):
    scores = self.score(masks)
    self.known.update(zip((mask.tobytes() for mask in masks), scores, strict=True))
    return scores

  def ranked(self):
    order = sorted(self.known, key=lambda mask: -self.known[mask])
    return [np.frombuffer(mask, bool) for mask in order]


def test_it_stops_where_no_neighbour_of_any_mask_improves():
  terms, score = make_terms(), Score()

  @functools.cache  # because many starts lead through the same masks
  def neighbours_of(key):
    return list(neighbours(terms.constraints, np.frombuffer(key, bool), np.zeros(12)))

  around = lambda mask: neighbours_of(mask.tobytes())
  for start in feasible_masks(terms)[::400]:
    scored = Scored(score, start)
    mask = refine(around, scored, scored.ranked, score(start[None])[0], scored.known, 10_000, 8)
    assert len(scored.known) < 10_000
    assert score(mask[None])[0] == max(scored.known.values())
    assert scored.known.keys() >= {child.tobytes() for child in around(mask)}


def test_it_passes_over_worse_masks_to_a_better_one():
  # Each bit alone lowers the score, and all four together raise it: 0, -1, -2, -3, 4.
  score = lambda masks: np.where(masks.all(1), 4.0, -masks.sum(1))
  change_a_bit = lambda mask: iter(mask ^ np.eye(4, dtype=bool))
  scored = Scored(score, np.zeros(4, bool))
  found = refine(change_a_bit, scored, scored.ranked, 0.0, scored.known, 15, 3)
  assert found.all()
  # The best mask comes first where the evaluations do not suffice for the way to another.
  scored = Scored(score, np.zeros(4, bool))
  assert not refine(change_a_bit, scored, scored.ranked, 0.0, scored.known, 5, 3).any()


def test_it_scores_no_more_than_asked_and_nothing_known():
  terms, score = make_terms(), Score()
  around = lambda mask: neighbours(terms.constraints, mask, np.zeros(12))
  first = list(itertools.islice(around(terms.best.mask), 3))
  known = {mask.tobytes() for mask in first}

  def score_and_remember(masks):
    assert not known & {mask.tobytes() for mask in masks}
    known.update(mask.tobytes() for mask in masks)
    return score(masks)

  refine(around, score_and_remember, lambda: [terms.best.mask], np.inf, known, 7, 4)
  assert [len(masks) for masks in score.asked] == [4, 3]
  assert len(known) == 3 + 7
