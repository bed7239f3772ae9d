"""Tests of the whole search on small real networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import CriticConfig, DualConfig, PolicyConfig, PPOConfig
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import Classical, Evidence, classical_pruners, score_channels
from gatprune_jax.data import Split
from gatprune_jax.evaluation import AdaptationConfig, Score
from gatprune_jax.networks import CLASSIFICATION, Network
from gatprune_jax.runs.checkpointer import NullCheckpointer
from gatprune_jax.search import (
  SEARCHES,
  PruningProblem,
  Scorer,
  SearchConfig,
  hold_out_confirmation,
  make_decisions,
  make_environment,
  search,
  warm_logits,
)
from gatprune_jax.search import update as updates
from gatprune_jax.search.agent_search import final_logits, learn
from gatprune_jax.search.incumbent import Incumbent, challenge
from gatprune_jax.search.mdp import transition
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.scorer import image_scores
from gatprune_jax.search.update import compile_update
from tests.channels.costs.latency_tables import table_of
from tests.search.baselines.test_equal_budget import make_terms

CONFIG = SearchConfig(
  updates=4, samples=4, schedule="one_shot", constraint="lagrangian", keep_floor=0.1,
  allow_empty=False, likelihood_weight=0.5, likelihood_bound=5.0, self_competition="best",
  past_scores=32, warm_start=2.0, adaptation=AdaptationConfig(0, 4, 0.05),
  calibration_images=8, calibration_batch=4, confirmation_share=0.5, refinement=4, elites=3,
  shortlist=3, chunk=4, policy=PolicyConfig(layers=1, heads=2, head_features=4),
  ppo=PPOConfig(2, 0.2, 0.1, 0.0, 3e-3, 0.1, 1.0), dual=DualConfig(0.5, 0.05, 10.0),
  critic=CriticConfig(8, 0.1, 0.5),
)  # fmt: skip

COSTS = {
  "macs": gp.macs, "params": gp.params, "weight_bytes": gp.weight_bytes,
  "activation_bytes": gp.activation_bytes,
}  # fmt: skip


def make_problem(e, limits, config=CONFIG, seed=0, deployment=None):
  """Returns the problem of pruning an example's network, with four classical masks.

  Args:
    e: the example.
    limits: {resource: budget}.
    config: settings of the search.
    seed: seed by which the confirmation split is drawn.
    deployment: how the pruned network is going to be run.
  """
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  constraints = make_constraints(graph, limits, config.keep_floor, deployment=deployment)
  evidence = Evidence(
    graph, e.network, CLASSIFICATION, jnp.asarray(e.x), jnp.asarray(e.y), jax.random.key(0)
  )
  saliency = {name: score_channels(name, evidence) for name in ("l1", "taylor")}
  pruners = classical_pruners(constraints, saliency)
  split = Split(np.tile(e.x, (3, 1, 1, 1))[:36], np.arange(36, dtype=np.int32) % 5)
  reward, confirmation = hold_out_confirmation(config, split, seed)
  return PruningProblem(
    e.network, CLASSIFICATION, constraints, split, reward, confirmation, pruners, saliency
  )


def run(e, limits, config=CONFIG, on_update=lambda progress: None, seed=0):
  problem = make_problem(e, limits, config, seed)
  result = search(problem, config, seed, on_update)
  return problem.constraints, result


@pytest.mark.parametrize(
  ("limits", "change"),
  [
    ({"macs": 0.3}, {}),
    ({"params": 0.4}, {"constraint": "projection", "chunk": 0}),
    pytest.param(
      {"macs": 0.4},
      {"policy": PolicyConfig("none"), "critic": CriticConfig(0, 0.0, 0.0)},
      marks=pytest.mark.long,
    ),
    ({"macs": 0.5, "params": 0.3}, {"schedule": "layerwise"}),
    pytest.param({"macs": 0.5, "activation_bytes": 0.6, "params": 0.3}, {}, marks=pytest.mark.long),
  ],
)
def test_every_returned_mask_is_within_every_budget(two_layers, limits, change):
  config = dataclasses.replace(CONFIG, updates=2, **change)
  constraints, result = run(two_layers, limits, config)
  graph = constraints.graph
  assert 1 <= len(result.masks) <= config.shortlist
  ones = np.ones(graph.num_channels)
  for mask in result.masks:
    for name, limit in limits.items():
      assert COSTS[name](graph, mask) <= limit * COSTS[name](graph, ones)
    widths = [mask[group.channels].sum() for group in graph.groups]
    assert (widths >= constraints.floors).all()
  assert (np.diff(result.scores) <= 0).all()


def test_returned_masks_fill_the_blocks_that_they_pay_for(two_layers):
  graph = gp.trace(two_layers.eval_fn, two_layers.variables, two_layers.x)
  table = table_of(graph, lambda _, widths: float(np.prod(widths)), block=4,
                   knots_of=lambda width: (2, 4, width))  # fmt: skip
  # The shortlist holds all feasible samples, and nothing else is scored.
  config = dataclasses.replace(CONFIG, samples=16, refinement=0, elites=99, shortlist=99)
  problem = make_problem(two_layers, {"latency": 0.6}, config, deployment=gp.Deployment(1, table))
  result = search(problem, config)
  assert len(result.masks) > 8
  for mask in result.masks:
    first, second = (mask[group.channels].sum() for group in graph.groups)
    assert first in (2, 4, 6)
    assert second in (2, 4, 8)
  # A score is that of the filled mask.
  scorer = Scorer(problem, config)
  np.testing.assert_allclose(scorer.shortlist(result.masks)[1], result.scores, rtol=1e-5)


THREE = {"macs": 0.6, "activation_bytes": 0.8, "weight_bytes": 0.35}


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_is_within_three_budgets(name, two_layers):
  problem = make_problem(two_layers, THREE)
  result = SEARCHES[name](problem, Scorer(problem, CONFIG), 12, 0)
  everything = np.ones(problem.constraints.graph.num_channels)
  for mask in result.masks:
    for name, cost in COSTS.items():
      graph = problem.constraints.graph
      assert cost(graph, mask) <= THREE.get(name, 1) * cost(graph, everything)


def test_multipliers_of_budgets_that_do_not_bind_end_at_zero(two_layers):
  config = dataclasses.replace(CONFIG, updates=12, dual=DualConfig())
  limits, seen = {"activation_bytes": 0.95, "params": 0.25, "weight_bytes": 1.0}, []
  _, result = run(two_layers, limits, config, lambda p: seen.append(p.metrics["multiplier"]))
  # The names are sorted: activation_bytes, params, weight_bytes. With a quarter of the parameters
  # the other two limits are met by far.
  assert max(value[1] for value in seen) > 0
  for values in (result.state.multipliers.value, result.state.multipliers.integral):
    assert (values[0], values[2]) == (0, 0)


def test_every_part_of_a_search_compiles_once(two_layers, monkeypatch):
  traces = []

  def counted(name, fn):
    def call(*args):
      traces.append(name)  # runs when JAX traces the function, not when the function runs
      return fn(*args)

    return call

  parts = ("sample", "improve", "confirm")
  for name in parts:
    monkeypatch.setattr(updates, name, counted(name, getattr(updates, name)))
  steps = []
  config = dataclasses.replace(CONFIG, confirmation_share=0.25)
  problem = make_problem(two_layers, {"macs": 0.3}, config)
  search(problem, config, on_update=lambda progress: steps.append(progress.update))
  assert steps == [1, 2, 3, 4]
  assert tuple(traces) == parts
  # Classical masks, samples, candidates and exchanges go through one program, on both splits.
  assert problem.reward.num != problem.confirmation.num
  assert problem.evaluator(config)._score_first._cache_size() == 1


def test_the_same_seed_gives_the_same_search(two_layers):
  lines = []
  results = [
    run(two_layers, {"macs": 0.3}, on_update=lambda p: lines.append(p.metrics), seed=seed)[1]
    for seed in (7, 7, 8)
  ]
  np.testing.assert_array_equal(results[0].masks, results[1].masks)
  for one, other in zip(lines[:4], lines[4:8], strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  assert lines[0]["score"] != lines[8]["score"]


def test_the_state_is_finite_and_counts(two_layers):
  problem, exchanges = make_problem(two_layers, {"macs": 0.3}), []
  result = search(problem, CONFIG, on_exchanges=lambda *told: exchanges.append(told))
  assert int(result.state.step) == 4
  for leaf in jax.tree.leaves(result.state.learner.params):
    assert np.isfinite(leaf).all()
  # At most these masks are scored: 4 classical masks, 4 x 4 samples, the mask of the final logits,
  # the incumbent, 3 elites, and 4 neighbours.
  by_updates = int(result.state.replay.size)
  assert 4 < by_updates < result.evaluations <= 4 + 16 + 5 + 4
  # Samples that were scored before leave their evaluations to further exchanges.
  scored, most = zip(*exchanges, strict=True)
  classical = len({pruner.mask.tobytes() for pruner in problem.pruners})
  assert set(most) == {4 + 16 - (by_updates - classical)}
  assert list(scored) == sorted(set(scored))
  assert 0 <= result.evaluations - by_updates - scored[-1] <= 5


def test_what_a_search_costs_in_forward_passes(two_layers):
  config = dataclasses.replace(CONFIG, adaptation=AdaptationConfig(2, 6, 0.05))
  problem = make_problem(two_layers, {"macs": 0.3}, config)
  result = search(problem, config)
  # A score costs 8 calibration images, 3 passes for each of 6 images in 2 steps, and its images.
  on_reward, on_confirmation = (
    8 + 36 + split.num for split in (problem.reward, problem.confirmation)
  )
  # Each of the 4 updates confirms one mask; the shortlist is chosen from at most 3 elites.
  confirmed = 4 + min(3, result.evaluations)
  assert result.passes == result.evaluations * on_reward + confirmed * on_confirmation


def test_the_shortlist_is_chosen_from_the_elites(two_layers, monkeypatch):
  asked, shortlist = [], Scorer.shortlist

  def kept(scorer, masks):
    asked.append((masks, scorer.best(CONFIG.elites)))
    return shortlist(scorer, masks)

  monkeypatch.setattr(Scorer, "shortlist", kept)
  run(two_layers, {"macs": 0.3})
  ((masks, elites),) = asked
  np.testing.assert_array_equal(masks, elites)


def test_a_budget_of_everything_is_met_up_to_rounding(two_layers):
  problem = make_problem(two_layers, {"macs": 1.0})
  scorer = Scorer(problem, CONFIG)
  _, learner, inputs, state = prepare(problem, CONFIG, scorer, 0)
  # The budget is the largest share below 1 in float32, as if the sum of the costs had been rounded
  # down.
  limits = np.nextafter(np.ones(1, np.float32), 0)
  budgets = dataclasses.replace(inputs.environment.budgets, limits=limits)
  inputs = inputs._replace(environment=inputs.environment.replace(budgets=budgets))
  _, metrics = compile_update(CONFIG, learner, scorer)(state, inputs)
  assert metrics["cost"] > 0.9
  assert metrics["feasible_share"] == 1


def test_the_policy_learns_the_channels_that_matter():
  # The network copies its two features to two logits through the first two of eight hidden
  # channels. The other six channels only add noise. The budget allows two channels. The policy
  # begins with the given classical order, which is exactly wrong.
  rng = np.random.default_rng(0)
  first = np.zeros((2, 8), np.float32)
  first[0, 0] = first[1, 1] = 1.0
  first[:, 2:] = rng.standard_normal((2, 6))
  last = np.zeros((8, 2), np.float32)
  last[0, 0] = last[1, 1] = 1.0
  last[2:] = 0.05 * rng.standard_normal((6, 2))
  variables = {"params": {"first": jnp.asarray(first), "last": jnp.asarray(last)}}

  def eval_fn(v, x):
    return jax.nn.relu(x @ v["params"]["first"]) @ v["params"]["last"]

  train_fn = lambda v, x: (eval_fn(v, x), {})
  x = np.abs(rng.standard_normal((80, 2))).astype(np.float32)
  split = Split(x, x.argmax(1).astype(np.int32))
  graph = gp.trace(eval_fn, variables, x)
  constraints = make_constraints(graph, {"macs": 0.25}, 0.0)
  wrong = np.array([7, 6, 5, 4, 3, 2, 1, 0])
  mask = wrong < 2
  config = dataclasses.replace(
    CONFIG,
    updates=60,
    samples=16,
    past_scores=64,
    warm_start=0.5,
    confirmation_share=0.25,
    compensation_ridge=0.0,  # no channel may stand in for another
  )
  problem = PruningProblem(
    Network(eval_fn, train_fn, variables), CLASSIFICATION, constraints, split,
    *hold_out_confirmation(config, split, 0), [Classical("wrong", wrong, mask)],
    {"wrong": -wrong.astype(float)},
  )  # fmt: skip
  scorer = Scorer(problem, config)
  policy, learner, inputs, state = prepare(problem, config, scorer, 0)
  assert np.argsort(-final_logits(policy, state, inputs)).tolist() == wrong.argsort().tolist()
  state = learn(scorer, learner, inputs, state, lambda _: None, NullCheckpointer())
  logits = final_logits(policy, state, inputs)
  assert logits[:2].min() > 0 > logits[2:].max()


def test_scores_of_images_by_hand():
  # The scores are 1 - 0.5 * 0.1, 0 - 0.5 * 2 and 0 - 0.5 * 5, where the bound 5 replaces 9 nats.
  score = Score(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.1, 2.0, 9.0]))
  np.testing.assert_allclose(image_scores(CONFIG, score), [0.95, -1.0, -2.5], rtol=1e-6)


def warm(terms, half_range, limit):
  """Returns the first logits at a budget of MACs, and the mean cost of 20,000 masks."""
  constraints = make_constraints(terms.constraints.graph, {"macs": limit}, 0.0)
  decisions = make_decisions(constraints.graph, "one_shot")
  environment = make_environment(constraints, decisions, -terms.best.order)
  logits = warm_logits(terms.best.order, half_range, environment)
  bits = np.random.default_rng(7).random((20_000, 12)) < np.asarray(jax.nn.sigmoid(logits))
  ratios = jax.jit(jax.vmap(lambda b: constraints.budgets.ratios(transition(environment, b))))
  return np.asarray(logits, np.float64), float(ratios(bits).mean())


def test_the_first_policy_is_at_the_budget_in_the_order_given():
  terms = make_terms()  # dense layers of 3, 5, 4, 3 and 2 channels
  logits, cost = warm(terms, 2.0, 0.5)
  np.testing.assert_array_equal(np.argsort(-logits), np.argsort(terms.best.order))
  np.testing.assert_allclose(np.diff(np.sort(logits)), 2 * 2.0 / 12, rtol=1e-5)
  assert cost == pytest.approx(0.5, rel=0.02)
  # Neighbouring logits are 10 apart, and a quarter of the channels are kept, so the shift is more
  # than 20.
  _, cost = warm(terms, 60.0, 0.14)
  assert cost == pytest.approx(0.14, rel=0.02)
  logits, _ = warm(terms, 2.0, 1.0)
  np.testing.assert_array_equal(logits, np.full(12, 8.0))


def incumbent(score, confirmation):
  confirmation = jnp.asarray(confirmation, jnp.float32)
  return Incumbent(jnp.full(3, score > 0.5), jnp.asarray(score, jnp.float32), confirmation)


def test_a_challenger_must_win_both_splits():
  holder = incumbent(0.5, [0, 0, 1, 1])
  # The differences on the confirmation split are 1 1 0 0, with mean 0.5, standard deviation 0.577
  # and standard error 0.289.
  assert challenge(holder, incumbent(0.6, [1, 1, 1, 1])).score == np.float32(0.6)
  assert challenge(holder, incumbent(0.4, [1, 1, 1, 1])).score == 0.5  # loses on the reward split
  # The differences are 1 1 -1 0, with mean 0.25 and standard error 0.479.
  assert challenge(holder, incumbent(0.6, [1, 1, 0, 1])).score == 0.5
  assert challenge(holder, incumbent(0.6, [0, 0, 1, 1])).score == 0.5  # a tie keeps the holder
  kept = challenge(holder, incumbent(0.6, [1, 1, 1, 1]))
  assert kept.mask.tolist() == [True] * 3


def test_who_is_not_finite_on_the_confirmation_split_loses():
  holder, spoilt = incumbent(0.5, [0, 0, 1, 1]), incumbent(0.9, [1, 1, np.nan, 1])
  assert challenge(holder, spoilt).score == 0.5
  assert challenge(spoilt, holder).score == 0.5
  assert challenge(spoilt, incumbent(-np.inf, [0, 0, 1, 1])).score == np.float32(0.9)  # infeasible
  assert challenge(incumbent(0.5, [0, 0]), incumbent(0.9, [np.inf, np.inf])).score == 0.5


def test_a_confirmation_split_has_two_images_at_least():
  split = Split(np.zeros((8, 1, 1, 1), np.float32), np.arange(8) % 2)
  config = dataclasses.replace(CONFIG, confirmation_share=0.25)
  assert len(hold_out_confirmation(config, split, 0)[1].y) == 2
  config = dataclasses.replace(CONFIG, confirmation_share=0.1)
  with pytest.raises(
    gp.InputError,
    match=r"confirmation_share 0\.1 of 8 reward images is one image",
  ):
    hold_out_confirmation(config, split, 0)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"updates": 0}, "search updates is 0"),
    ({"samples": 1}, "search samples is 1"),
    ({"past_scores": 3}, "search past_scores is 3"),
    ({"confirmation_share": 1.0}, r"search confirmation_share is 1\.0"),
    ({"schedule": "never"}, "search schedule 'never'"),
    ({"constraint": "hope"}, "search constraint 'hope'"),
    ({"refinement": -1}, "search refinement is -1"),
    ({"self_competition": "worst"}, "search self_competition 'worst'"),
    ({"likelihood_weight": -0.1}, r"search likelihood_weight is -0\.1"),
  ],
)
def test_impossible_searches_are_refused(change, message):
  with pytest.raises(gp.InputError, match=message):
    dataclasses.replace(CONFIG, **change)
