"""Tests of the ratio agent: it stays within budgets, uses all of its evaluations, and learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import LEARNERS, Experience
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import Classical, allocate, channel_order, order_by_ratios
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION, Network
from gatprune_jax.search import SEARCHES, PruningProblem, Scorer
from gatprune_jax.search.baselines.ratio_agent import RatioPolicy, ratio_actor
from tests.search.test_search import CONFIG


def make_problem():
  """Returns a problem in which equal shares of two groups of twelve channels are not optimal.

  The first group copies four features, and every channel that it loses makes the copy worse. The
  output reads only four channels of the second group. The classical mask keeps equal shares of both
  groups.
  """
  rng = np.random.default_rng(0)
  first = rng.standard_normal((4, 12)).astype(np.float32)
  second = np.linalg.pinv(first).astype(np.float32) @ np.eye(4, 12, dtype=np.float32)
  second[:, 4:] = 0.01 * rng.standard_normal((12, 8))
  last = np.eye(12, 4, dtype=np.float32)
  variables = {
    "params": {"a": jnp.asarray(first), "b": jnp.asarray(second), "c": jnp.asarray(last)}
  }

  def eval_fn(v, x):
    p = v["params"]
    return x @ p["a"] @ p["b"] @ p["c"]

  x = rng.standard_normal((120, 4)).astype(np.float32)
  split = Split(x, x.argmax(1).astype(np.int32))
  graph = gp.trace(eval_fn, variables, x[:1])
  constraints = make_constraints(graph, {"macs": 0.4}, 0.0)
  norms = np.concatenate([np.abs(first).sum(0), np.abs(second).sum(0)])
  order = channel_order(graph, norms, "uniform")
  classical = Classical("l1 uniform", order, allocate(constraints, order))
  network = Network(eval_fn, lambda v, x: (eval_fn(v, x), {}), variables)
  return PruningProblem(
    network, CLASSIFICATION, constraints, split, split, split, [classical], {"l1": norms}
  )


def test_ratios_move_to_where_the_score_is_best():
  # The utility is highest where the first of two groups keeps e times the share of the second.
  policy = RatioPolicy(8)
  groups = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)), jnp.float32)
  config = dataclasses.replace(CONFIG, ppo=dataclasses.replace(CONFIG.ppo, kl_stop=np.inf))
  learner = LEARNERS["ppo"](config, ratio_actor(policy))
  state, update = learner.init(jax.random.key(0), groups), jax.jit(learner.update)
  for index in range(60):
    actions, behaviour = learner.act(state, groups, 32, jax.random.key(index))
    utility = -((actions[:, 0] - actions[:, 1] - 1) ** 2)
    state, _ = update(state, groups, Experience(actions, behaviour, utility), 1.0)
  first, second = policy.apply(state.params, groups)[0]
  assert first - second == pytest.approx(1, abs=2 * CONFIG.ppo.embedding_learning_rate)


def test_it_improves_on_equal_shares_with_the_masks_it_is_given():
  problem = make_problem()
  config = dataclasses.replace(CONFIG, samples=8, chunk=8)
  seen = []
  result = SEARCHES["ratio_agent"](problem, Scorer(problem, config, seen.append), 5, seed=0)
  assert result.evaluations == 5  # of the seven masks that ratios can make
  assert seen == sorted(set(seen))
  assert seen[0] == 1  # the classical mask
  assert seen[-1] == 5
  for mask in result.masks:
    assert problem.constraints.feasible(mask)
    widths = [mask[group.channels].sum() for group in problem.constraints.graph.groups]
    # Within a group, the channels with the largest norms are kept.
    for group, width in zip(problem.constraints.graph.groups, widths, strict=True):
      norms = problem.saliency["l1"][group.channels]
      assert set(np.flatnonzero(mask[group.channels])) == set(np.argsort(-norms)[:width])
  network, graph, reward = problem.network, problem.constraints.graph, problem.reward
  logits = lambda mask: jax.jit(gp.masked(graph, network.eval_fn))(
    network.variables, mask, reward.x
  )
  accuracy = lambda mask: float((logits(mask).argmax(-1) == reward.y).mean())
  assert accuracy(result.masks[0]) > accuracy(problem.pruners[0].mask)


@pytest.mark.parametrize("name", SEARCHES)
def test_where_the_agent_found_nothing_the_classical_masks_are_left(name):
  problem = make_problem()
  result = SEARCHES[name](problem, Scorer(problem, CONFIG), 1, seed=0)
  np.testing.assert_array_equal(result.masks, [problem.pruners[0].mask])
  assert result.evaluations == 1


def test_less_than_the_classical_masks_is_refused():
  problem = make_problem()
  with pytest.raises(
    gp.InputError, match="0 evaluations are too few: every search scores the 1 cl"
  ):
    SEARCHES["evolve_bits"](problem, Scorer(problem, CONFIG), 0, seed=0)


def test_orders_follow_ratios_by_hand():
  graph = make_problem().constraints.graph  # two groups of twelve
  order = order_by_ratios(graph, np.arange(24), np.array([1.0, 0.5]))
  # The first group keeps twice the share of the second, so the channels of rank r have the
  # positions (r + 1/2) / 12 and (r + 1/2) / 6.
  assert np.argsort(order)[:9].tolist() == [0, 12, 1, 2, 13, 3, 4, 14, 5]


def test_it_needs_norms():
  problem = dataclasses.replace(make_problem(), saliency={"taylor": np.ones(24)})
  with pytest.raises(gp.InputError, match="ratio_agent ranks channels by 'l1', which is not among"):
    SEARCHES["ratio_agent"](problem, Scorer(problem, CONFIG), 40, seed=0)
