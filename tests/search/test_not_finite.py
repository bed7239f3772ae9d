"""Tests of a search whose numbers are not finite: it skips updates, and then rolls back."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.evaluation import AdaptationConfig
from gatprune_jax.runs.checkpointer import NullCheckpointer
from gatprune_jax.runs.file_checkpointer import FileCheckpointer
from gatprune_jax.runs.health import Diverged, must_roll_back
from gatprune_jax.runs.loop import Steps, roll_back
from gatprune_jax.search import Scorer, search
from gatprune_jax.search.agent_search import learn
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.update import compile_update
from tests.search.test_search import CONFIG, make_problem

STEPS = Steps(
  what="the search",
  finished=None,
  inputs=None,
  step=None,
  health=lambda state: state.health,
  with_health=lambda state, health: state.replace(health=health),
)


class Searching:
  """A search before its first update, in which `spoil` changes the scores of masks."""

  def __init__(self, example, config=CONFIG, spoil=lambda mask, score: score):
    self.problem = make_problem(example, {"macs": 0.3}, config)
    self.scorer, self.config = Scorer(self.problem, config), config
    _, self.learner, self.inputs, self.state = prepare(self.problem, config, self.scorer, 0)
    self.steps, self.metrics = [], []
    scores = self.scorer.evaluator.scores
    self.spoilt = copy.copy(self.scorer)
    self.spoilt.evaluator = copy.copy(self.scorer.evaluator)
    self.spoilt.evaluator.scores = lambda masks, examples: jax.vmap(spoil)(
      masks, scores(masks, examples)
    )

  def on_update(self, progress):
    self.steps.append(progress.update)
    self.metrics.append(progress.metrics)

  def learn(self, checkpointer):
    return learn(self.spoilt, self.learner, self.inputs, self.state, self.on_update, checkpointer)

  def update(self, state):
    step = compile_update(self.config, self.learner, self.spoilt)
    return step(jax.tree.map(jnp.array, state), self.inputs)


def checkpointer_in(path, every=1):
  return FileCheckpointer(str(path), {}, {}, 3, every)


def nan_loss(mask, score):
  return score._replace(loss=score.loss.at[0].set(jnp.nan))


def nan_accuracy(mask, score):
  return score._replace(score=score.score.at[0].set(jnp.inf))


@pytest.mark.parametrize("spoil", [nan_loss, pytest.param(nan_accuracy, marks=pytest.mark.slow)])
def test_after_three_skips_it_goes_back_and_after_three_times_it_stops(two_layers, tmp_path, spoil):
  searching = Searching(two_layers, dataclasses.replace(CONFIG, updates=50), spoil)
  with pytest.raises(Diverged, match=r"the search is not finite: 3 updates in a row up to step 6 ga"
                     r"ve NaN or infinity, after 3 roll-backs.*\(now 0\.125 of"):  # fmt: skip
    searching.learn(checkpointer_in(tmp_path, every=100))
  # A state is saved only at the roll-backs. The first roll-back happens after step 3, where all
  # updates have been skipped, and each later roll-back returns to that step.
  assert searching.steps == [1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6]
  assert [int(m["skipped"]) for m in searching.metrics] == list(range(1, 13))
  assert [int(m["rollbacks"]) for m in searching.metrics] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_a_search_that_learned_nothing_is_no_result(two_layers):
  searching = Searching(two_layers, dataclasses.replace(CONFIG, updates=2), nan_loss)
  with pytest.raises(Diverged, match="the search is not finite: all 2 updates gave NaN or infin"):
    searching.learn(NullCheckpointer())


def test_a_skipped_update_changes_nothing_but_the_counts(two_layers):
  searching = Searching(two_layers, spoil=nan_loss)
  state, _ = searching.update(searching.state)
  assert int(state.step) == 1
  assert (int(state.health.skipped), int(state.health.in_a_row)) == (1, 1)
  before = dataclasses.asdict(searching.state)
  after = dataclasses.asdict(state)
  for name in before.keys() - {"step", "health"}:
    for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True):
      np.testing.assert_array_equal(a, b)


def test_one_bad_update_is_passed_over(two_layers):
  def spoil(mask, score):  # spoils about one mask in thirteen
    bad = (mask * jnp.arange(len(mask))).sum() % 13 == 5
    return score._replace(loss=jnp.where(bad, jnp.nan, score.loss))

  searching = Searching(two_layers, dataclasses.replace(CONFIG, updates=12), spoil)
  state = searching.learn(NullCheckpointer())
  skipped = int(state.health.skipped)
  assert 0 < skipped < 12
  assert int(state.health.rollbacks) == 0
  size = int(state.replay.size)
  assert np.isfinite(state.replay.scores[:size]).all()
  for leaf in jax.tree.leaves(state.learner.params):
    assert np.isfinite(leaf).all()


def test_gradients_that_overflow_are_not_applied(two_layers, tmp_path):
  ppo = dataclasses.replace(CONFIG.ppo, learning_rate=3e38)  # near float32's largest
  searching = Searching(two_layers, dataclasses.replace(CONFIG, ppo=ppo, updates=9))
  with pytest.raises(Diverged, match="the search is not finite"):
    searching.learn(checkpointer_in(tmp_path))


@pytest.mark.long
def test_nan_logits_lead_back_to_the_last_state_saved(two_layers, tmp_path):
  searching = Searching(two_layers)
  good, _ = searching.update(searching.state)
  checkpointer = checkpointer_in(tmp_path)
  checkpointer.save(1, good)
  good = jax.device_get(good)
  nan = jax.tree.map(lambda leaf: jnp.nan * leaf, good.learner.params)
  state = good.replace(learner=good.learner.replace(params=nan))
  for step in (2, 3, 4):
    assert not must_roll_back(state.health.in_a_row)
    state, _ = searching.update(state)
    assert int(state.health.in_a_row) == step - 1
  assert must_roll_back(state.health.in_a_row)
  step, back = roll_back(STEPS, 4, state, checkpointer)
  assert step == 1
  health = back.health
  restored = back.replace(health=good.health)
  for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(good), strict=True):
    np.testing.assert_array_equal(a, b)
  assert float(health.rate) == 0.5
  assert (int(health.skipped), int(health.in_a_row), int(health.rollbacks)) == (3, 0, 1)
  assert int(health.finite) == 1  # finite updates up to the restored state
  # An earlier step can be saved after a later step, and the search goes on from the earlier step at
  # half the rate.
  checkpointer.save(step, back)
  checkpointer.finish(step, lambda: back)
  step, restored = checkpointer_in(tmp_path).restore(back)
  assert (step, float(restored.health.rate)) == (1, 0.5)
  slow, _ = searching.update(restored)
  fast, _ = searching.update(good)
  moved = lambda new: [
    np.abs(np.asarray(a) - b).max()
    for a, b in zip(
      jax.tree.leaves(new.learner.params), jax.tree.leaves(good.learner.params), strict=True
    )
  ]
  assert sum(moved(slow)) < 0.9 * sum(moved(fast))


def test_what_is_done_again_after_a_roll_back_has_other_samples(two_layers):
  searching = Searching(two_layers)
  sampled = lambda state: np.asarray(searching.update(state)[0].replay.masks)
  health = searching.state.health.replace(rollbacks=jnp.ones((), jnp.int32))
  assert (sampled(searching.state) != sampled(searching.state.replace(health=health))).any()


def test_a_network_that_is_not_finite_is_refused(two_layers):
  problem = make_problem(two_layers, {"macs": 0.3})
  eval_fn = lambda variables, x: two_layers.eval_fn(variables, x) * jnp.nan
  network = dataclasses.replace(two_layers.network, eval_fn=eval_fn)
  with pytest.raises(gp.InputError, match="under all 4 classical masks are NaN or infinite"):
    search(dataclasses.replace(problem, network=network), CONFIG, 0)


def test_nothing_is_learned_from_a_classical_mask_that_is_not_finite(two_layers):
  problem = make_problem(two_layers, {"macs": 0.3})
  scorer, spoilt = Scorer(problem, CONFIG), problem.pruners[-1].mask
  scorer.remember(spoilt[None], np.array([np.nan]), np.array([0.0]))
  _, learner, inputs, state = prepare(problem, CONFIG, scorer, 0)
  assert 0 < int(state.replay.size) == len({p.mask.tobytes() for p in problem.pruners}) - 1
  state = learn(scorer, learner, inputs, state, lambda progress: None, NullCheckpointer())
  assert int(state.health.skipped) == 0


WITH_STEPS = dataclasses.replace(CONFIG, adaptation=AdaptationConfig(2, 6, 0.05))


@pytest.mark.parametrize(
  "config",
  [
    pytest.param(CONFIG, id="compensated"),
    pytest.param(WITH_STEPS, id="with steps", marks=pytest.mark.long),
  ],
)
def test_a_search_goes_on_from_any_update_bit_for_bit(two_layers, tmp_path, config):
  whole = Searching(two_layers, config)
  expected = jax.device_get(whole.learn(NullCheckpointer()))
  for stop in (1, 2, 3):
    asked = functools.partial(int.__eq__, stop)
    checkpointer = FileCheckpointer(str(tmp_path / str(stop)), {}, {}, 3, 2, asked)
    first = Searching(two_layers, config)
    with pytest.raises(Exception, match=f"stopped after step {stop}"):
      first.learn(checkpointer)
    second = Searching(two_layers, config)
    state = second.learn(FileCheckpointer(str(tmp_path / str(stop)), {}, {}, 3, 2))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(state), strict=True):
      np.testing.assert_array_equal(a, b)
    told = [*first.metrics, *second.metrics]
    assert [*first.steps, *second.steps] == [1, 2, 3, 4]
    for a, b in zip(jax.tree.leaves(told), jax.tree.leaves(whole.metrics), strict=True):
      np.testing.assert_array_equal(a, b)
