"""Tests of the states and transitions of the environment."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import make_constraints
from gatprune_jax.search import SCHEDULES, make_decisions
from gatprune_jax.search.mdp import (
  CONSTRAINTS,
  decision_logits,
  greedy_logits,
  make_environment,
  rollout,
  states,
  transition,
)


@pytest.fixture(scope="module")
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x)


def half_of_the_macs(graph):
  return make_constraints(graph, {"macs": 0.5}, 0.25)


def environment(graph, schedule, constraint="lagrangian"):
  priority = np.arange(graph.num_channels)
  decisions = make_decisions(graph, schedule)
  return make_environment(half_of_the_macs(graph), decisions, priority, constraint)


def logits_fn(mask, decided):
  """Returns logits that depend on the state: they grow with the channels removed so far.

  They are multiples of 1/16, so that they are exact however they are computed.
  """
  gone = (~mask & decided).sum().astype(jnp.float32)
  return (jnp.arange(len(mask)) - len(mask) // 2) / 16 + gone / 8


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_channel_is_decided_once(graph, schedule):
  decisions = make_decisions(graph, schedule)
  assert decisions.dtype == bool
  np.testing.assert_array_equal(decisions.sum(0), np.ones(graph.num_channels))


def test_states_of_a_layerwise_episode_by_hand(graph):
  env = environment(graph, "layerwise")  # widths 4 4 6 6 8 8, floors 1 1 2 2 2 2
  bits = jnp.zeros(graph.num_channels, bool).at[jnp.array([0, 1])].set(True)
  mask, decided = states(env, bits, jnp.array(2))
  first, second, third = (group.channels for group in graph.groups[:3])
  assert decided.sum() == 8
  assert mask[first].tolist() == [True, True, False, False]  # the group is above its floor
  assert mask[second].tolist() == [False, False, False, True]  # raised to its floor by priority
  assert mask[third].all()  # the group is not decided yet
  final = transition(env, bits)
  assert [int(final[group.channels].sum()) for group in graph.groups] == [2, 1, 2, 2, 2, 2]


def test_projection_keeps_the_longest_prefix_that_fits(graph):
  env = environment(graph, "one_shot", constraint="projection")
  constraints, rng = half_of_the_macs(graph), np.random.default_rng(0)
  for share in (0.0, 0.3, 0.7, 1.0):
    bits = rng.random(graph.num_channels) < share
    mask = np.asarray(jax.jit(transition)(env, jnp.asarray(bits)))
    # The expected mask is found by trying every length of "sampled bits first, then by priority",
    # with groups raised to their floors.
    order = sorted(range(graph.num_channels), key=lambda i: (not bits[i], -i))
    fitting = []
    for size in range(graph.num_channels + 1):
      prefix = np.zeros(graph.num_channels, bool)
      prefix[order[:size]] = True
      for group in graph.groups:
        lacking = int(np.ceil(0.25 * len(group.channels))) - prefix[group.channels].sum()
        for channel in [c for c in group.channels[::-1] if not prefix[c]][: max(lacking, 0)]:
          prefix[channel] = True
      if constraints.feasible(prefix):
        fitting.append(prefix)
    np.testing.assert_array_equal(mask, fitting[-1])


def test_projection_is_not_stopped_by_rounding(graph):
  free, env = (environment(graph, "one_shot", constraint=name) for name in CONSTRAINTS)
  lead_to = jax.jit(transition)
  for seed in range(4):
    bits = np.random.default_rng(seed).random(graph.num_channels) < 0.7
    mask = np.asarray(lead_to(free, jnp.asarray(bits)))
    # A sum in float32 may exceed a budget that equals the exact cost of the mask by this much.
    limits = env.budgets.ratios(mask) / (1 + 3e-7)
    tight = env.replace(budgets=dataclasses.replace(env.budgets, limits=limits))
    np.testing.assert_array_equal(lead_to(tight, jnp.asarray(mask)), mask)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learner_sees_the_logits_that_were_sampled_from(graph, schedule):
  # If the logits differed, PPO's ratios would not be 1 in its first step.
  env = environment(graph, schedule)
  bits, logits = jax.jit(lambda key: rollout(env, logits_fn, 6, key))(jax.random.key(0))
  np.testing.assert_allclose(decision_logits(env, logits_fn, bits), logits, rtol=1e-6)
  assert len({row.tobytes() for row in np.asarray(bits)}) == 6
  if schedule == "layerwise":  # later logits depend on the bits that were sampled before
    assert np.asarray(logits)[:, -1].std() > 0


def test_layerwise_logits_by_an_explicit_episode(graph):
  env = environment(graph, "layerwise")
  bits, logits = rollout(env, logits_fn, 2, jax.random.key(1))
  for b in range(2):
    decided = np.zeros(graph.num_channels, bool)
    for group in graph.groups:
      so_far = jnp.where(decided, bits[b], True)
      mask = transition(env, so_far)
      expected = logits_fn(mask, jnp.asarray(decided))
      np.testing.assert_allclose(logits[b][group.channels], expected[group.channels], rtol=1e-6)
      decided[group.channels] = True


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_greedy_episode_is_a_fixed_point(graph, schedule):
  env = environment(graph, schedule)
  logits = greedy_logits(env, logits_fn)
  np.testing.assert_allclose(
    decision_logits(env, logits_fn, (logits > 0)[None])[0], logits, rtol=1e-6
  )


def test_gradients_flow_through_every_step(graph):
  env = environment(graph, "layerwise")
  bits, _ = rollout(env, logits_fn, 3, jax.random.key(2))
  weighted = lambda w: decision_logits(env, lambda m, d: w * logits_fn(m, d), bits)
  jacobian = jax.jacobian(weighted)(1.0)
  np.testing.assert_allclose(jacobian, weighted(1.0), rtol=1e-5)


def test_an_unknown_schedule_is_refused(graph):
  with pytest.raises(gp.InputError, match="schedule 'random' is unknown: choose from one_shot"):
    make_decisions(graph, "random")
