"""Tests of searches that score their masks cheaply first."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import fit_surrogate
from gatprune_jax.evaluation import AdaptationConfig
from gatprune_jax.search import Scorer, passes_of_score, search
from gatprune_jax.search.levels import rise
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.replay import init_replay
from tests.search.test_search import CONFIG, make_problem

TWO_LEVELS = dataclasses.replace(
  CONFIG, cheap_updates=3, updates=2, adaptation=AdaptationConfig(2, 6, 0.05)
)


def test_all_that_is_known_of_scores_begins_anew(two_layers):
  problem = make_problem(two_layers, {"macs": 0.3}, TWO_LEVELS)
  scorer, cheap = Scorer(problem, TWO_LEVELS), Scorer(problem, TWO_LEVELS.cheap)
  _, _, inputs, state = prepare(problem, TWO_LEVELS, cheap, 0)
  # Six random masks, each scored cheaply as its number.
  rng, num_channels = np.random.default_rng(0), problem.constraints.graph.num_channels
  masks = rng.random((6, num_channels)) < 0.4
  feasible = [mask for mask in masks if problem.constraints.feasible(mask)]
  scores = np.arange(6, dtype=np.float32)
  replay = init_replay(masks, scores, scores, len(state.replay.scores))
  before = state.replace(replay=replay)
  cheap.known.clear()
  after = rise(problem, cheap, scorer, inputs.observation, before)

  classical = {pruner.mask.tobytes() for pruner in problem.pruners}
  given = [np.asarray(mask) for mask in after.replay.masks[: int(after.given)]]
  elites = feasible[::-1][: TWO_LEVELS.elites]
  assert {mask.tobytes() for mask in given} == classical | {mask.tobytes() for mask in elites}
  assert int(after.replay.size) == int(after.given)
  assert int(after.cheap_masks) == 6
  # Every score is the one after the gradient steps.
  expected = Scorer(problem, TWO_LEVELS)(np.stack(given))[0]
  np.testing.assert_allclose(after.replay.scores[: len(given)], expected, rtol=1e-5)
  np.testing.assert_array_equal(after.incumbent.mask, given[expected.argmax()])
  np.testing.assert_allclose(after.incumbent.score, expected.max(), rtol=1e-5)
  np.testing.assert_allclose(np.sort(after.past.scores[: len(given)]), np.sort(expected), rtol=1e-5)
  # The slopes are those of a critic of the cheap scores.
  channels = np.asarray(inputs.observation.channels)
  critic = TWO_LEVELS.critic
  fitted = fit_surrogate(
    jnp.asarray(masks), jnp.asarray(scores), jnp.ones(6, bool), jnp.asarray(channels), critic.prior
  ).weights
  slopes = (fitted - fitted.mean()) / fitted.std()
  np.testing.assert_allclose(after.slopes, slopes, rtol=1e-3, atol=1e-3)
  # The policy and the multipliers go on.
  for name in ("learner", "multipliers", "health", "step"):
    pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (before, after)), strict=True)
    for a, b in pairs:
      np.testing.assert_array_equal(a, b)


def test_the_masks_of_both_levels_are_counted_with_what_they_cost(two_layers):
  problem, lines = make_problem(two_layers, {"macs": 0.3}, TWO_LEVELS), []
  result = search(problem, TWO_LEVELS, 0, lambda p: lines.append((p.update, p.metrics)))
  assert [number for number, _ in lines] == [1, 2, 3, 4, 5]
  told = [int(metrics["evaluations"]) for _, metrics in lines]
  assert told == sorted(told)
  num_cheap = int(result.state.cheap_masks)
  assert told[2] == num_cheap  # after the last cheap update
  # Cheap masks: at most four classical masks, and three updates of four masks.
  assert 0 < num_cheap <= 4 + 3 * 4
  num_dear = result.evaluations - num_cheap
  images = problem.reward.num, problem.confirmation.num
  cheap, dear = (
    [passes_of_score(config, num) for num in images] for config in (TWO_LEVELS.cheap, TWO_LEVELS)
  )
  assert dear[0] - cheap[0] == 3 * 2 * 6  # forward and backward passes of two steps of six images
  elites = min(TWO_LEVELS.elites, num_dear)
  cheap_passes = num_cheap * cheap[0] + 3 * cheap[1]
  assert result.passes == cheap_passes + num_dear * dear[0] + (2 + elites) * dear[1]
  for mask in result.masks:
    assert problem.constraints.feasible(mask)


def test_cheap_updates_need_a_dearer_level():
  with pytest.raises(gp.InputError, match=r"cheap_updates is 2, but adaptation\.steps is 0"):
    dataclasses.replace(CONFIG, cheap_updates=2)
