"""Tests of PPO, the multipliers and self-competition.

The expected values are worked out by hand, follow from identities, or come from enumeration.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import (
  REWARDS,
  DualConfig,
  PPOConfig,
  bits,
  clipped_objective,
  compete,
  init_multipliers,
  init_past,
  leave_one_out_advantages,
  remember,
  set_units,
  update_multipliers,
  utility,
)


def test_clipped_objective_by_hand():
  # The ratios are 1.5, 0.5, 1.5, 0.5 and epsilon is 0.2. A gain is capped and a loss is not:
  # A = +1: min(1.5, 1.2) and min(0.5, 0.8); A = -1: min(-1.5, -1.2) and min(-0.5, -0.8).
  new = jnp.log(jnp.array([1.5, 0.5, 1.5, 0.5]))
  advantage = jnp.array([1.0, 1.0, -1.0, -1.0])
  objective = clipped_objective(new, jnp.zeros(4), advantage, 0.2)
  np.testing.assert_allclose(objective, [1.2, 0.5, -1.5, -0.8], rtol=1e-6)


def test_extreme_log_ratios_stay_finite():
  objective = clipped_objective(jnp.array([300.0, -300.0]), jnp.zeros(2), jnp.array(-1.0), 0.2)
  assert np.isfinite(objective).all()


def test_first_pass_is_the_policy_gradient():
  # At the policy that drew the samples every ratio is 1, and the gradient is
  # sum_b A_b grad log p(bits_b).
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.standard_normal(6), jnp.float32)
  drawn = jnp.asarray(rng.random((5, 6)) < 0.5)
  log_prob = lambda logits: bits(jnp.broadcast_to(logits, drawn.shape)).log_prob(drawn)
  advantage = jnp.asarray(rng.standard_normal(5), jnp.float32)
  old = log_prob(logits)

  def objective(logits):
    return clipped_objective(log_prob(logits), old, advantage[:, None], 0.2).sum()

  p = 1 / (1 + np.exp(-np.asarray(logits)))
  expected = (np.asarray(advantage)[:, None] * (np.asarray(drawn) - p)).sum(0)
  np.testing.assert_allclose(jax.grad(objective)(logits), expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(objective(logits), 6 * advantage.sum(), rtol=1e-5)


def test_one_channel_is_joint_ppo():
  new, old, advantage = jnp.array([[0.3], [-0.6]]), jnp.zeros((2, 1)), jnp.array([1.0, -2.0])
  per_channel = clipped_objective(new, old, advantage[:, None], 0.2)[:, 0]
  ratio = np.exp(np.asarray(new.sum(1)))
  joint = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
  np.testing.assert_allclose(per_channel, joint, rtol=1e-6)


def test_leave_one_out_by_hand():
  # U = 1, 2, 6. The means of the other two are 4, 3.5, 1.5, so that A = -3, -1.5, 4.5 with mean 0
  # and variance 31.5 / 3.
  advantage = leave_one_out_advantages(jnp.array([1.0, 2.0, 6.0]))
  np.testing.assert_allclose(advantage, np.array([-3, -1.5, 4.5]) / np.sqrt(10.5), rtol=1e-5)
  shifted = leave_one_out_advantages(jnp.array([1.0, 2.0, 6.0]) + 50)
  # A constant added to every reward changes no advantage.
  np.testing.assert_allclose(shifted, advantage, rtol=1e-4)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, -1.3])
def test_equal_utilities_give_no_advantage(value):
  for num in (2, 3, 5, 7, 13, 24, 49, 64):
    np.testing.assert_array_equal(leave_one_out_advantages(jnp.full(num, value)), np.zeros(num))


def test_leave_one_out_gradient_is_unbiased_by_enumeration():
  # The batch has two samples of ten bits, so the expectation over all 1,048,576 pairs is exact.
  # The advantages are compared before they are normalised, because the division by the batch's
  # standard deviation is a (harmless) change of step size.
  rng = np.random.default_rng(0)
  p = rng.uniform(0.1, 0.9, 10)
  masks = np.array(list(itertools.product([0, 1], repeat=10)))
  probability = np.prod(np.where(masks, p, 1 - p), axis=1)
  reward = rng.standard_normal(1024)
  score_function = masks - p  # gradient of the log-probability with respect to the logits
  expected = (probability * reward) @ score_function

  estimate = np.zeros(10)
  for i in range(1024):
    pairs = np.stack([np.full(1024, reward[i]), reward], axis=1)
    # `leave_one_out_advantages` divides by the standard deviation, so multiply by it again.
    raw = 2 * (pairs - pairs.mean(1, keepdims=True))
    standardised = np.asarray(jax.vmap(leave_one_out_advantages)(pairs), np.float64)
    advantage = standardised * raw.std(1, keepdims=True)
    weight = probability[i] * probability / 2
    estimate += (weight * advantage[:, 0]).sum() * score_function[i]
    estimate += (weight * advantage[:, 1]) @ score_function
  np.testing.assert_allclose(estimate, expected, atol=1e-6)


DUAL = DualConfig(proportional=0.5, integral=0.1, maximum=2.0)


def in_units_of_one(num):
  return init_multipliers(num).replace(unit=jnp.ones(num))


def run_dual(violations, config=DUAL):
  state, trace = in_units_of_one(1), []
  for v in violations:
    state = update_multipliers(config, state, jnp.array([v]))
    trace.append(float(state.value[0]))
  return np.array(trace)


def test_constant_violation_gives_a_ramp():
  # The controller gives lambda_t = 0.1 t v + 0.5 v, here with v = 0.4.
  np.testing.assert_allclose(run_dual([0.4] * 5), 0.04 * np.arange(1, 6) + 0.2, rtol=1e-5)


def test_multipliers_stay_in_their_bounds():
  trace = run_dual([10.0] * 5 + [-10.0] * 5)
  assert trace.max() == 2.0
  assert trace.min() == 0.0


def test_the_integral_does_not_wind_up():
  # However long lambda was at its bound, the integral is 2. One violation of -10 at gain 0.1
  # already lowers the integral to 2 - 1 = 1 (and the proportional term takes lambda to 0).
  long, short = run_dual([10.0] * 500 + [-10.0, 0.0]), run_dual([10.0] * 3 + [-10.0, 0.0])
  np.testing.assert_allclose(long[-2:], [0.0, 1.0], atol=1e-6)
  np.testing.assert_allclose(long[-2:], short[-2:])


def test_constraints_do_not_mix():
  state = update_multipliers(DUAL, in_units_of_one(2), jnp.array([0.4, -0.4]))
  np.testing.assert_allclose(state.value, [0.24, 0.0], rtol=1e-5)


def test_multipliers_continue_from_their_stored_state():
  whole = run_dual([0.4, -0.1, 0.7, 0.2])
  state = in_units_of_one(1)
  for v in (0.4, -0.1):
    state = update_multipliers(DUAL, state, jnp.array([v]))
  leaves, treedef = jax.tree.flatten(state)
  state = jax.tree.unflatten(treedef, [np.asarray(leaf) for leaf in leaves])
  for v, expected in zip((0.7, 0.2), whole[2:], strict=True):
    state = update_multipliers(DUAL, state, jnp.array([v]))
    assert float(state.value[0]) == expected


def drawn_samples(num_constraints):
  rng = np.random.default_rng(0)
  violation = rng.standard_normal((32, num_constraints))
  return violation.sum(1) + 0.3 * rng.standard_normal(32), violation


def test_units_are_of_the_standard_deviations_of_the_first_samples():
  reward, violation = drawn_samples(2)
  violation[:, 1] = 0.3
  state = set_units(init_multipliers(2), jnp.array(reward), jnp.array(violation))
  expected = [reward.std() / violation[:, 0].var(), 1.0]  # equal violations have the unit 1
  np.testing.assert_allclose(state.unit, expected, rtol=1e-5)
  again = set_units(state, jnp.array(5 * reward), jnp.array(violation))
  np.testing.assert_array_equal(again.unit, state.unit)


def test_equal_rewards_set_no_unit():
  _, violation = drawn_samples(1)
  state = set_units(init_multipliers(1), jnp.ones(32), jnp.array(violation))
  np.testing.assert_array_equal(state.unit, [0.0])
  reward, violation = drawn_samples(1)
  assert float(set_units(state, jnp.array(reward), jnp.array(violation)).unit[0]) > 0


def test_the_controller_follows_the_scales_of_reward_and_violation():
  reward, violation = drawn_samples(1)
  config = dataclasses.replace(DUAL, maximum=1e6)
  values = []
  for of_reward, of_violation in ((1.0, 1.0), (8.0, 1.0), (1.0, 0.1)):
    samples = jnp.array(of_reward * reward), jnp.array(of_violation * violation)
    state = set_units(init_multipliers(1), *samples)
    for v in (0.3, -0.1, 0.2):
      state = update_multipliers(config, state, jnp.array([of_violation * v]))
    values.append(float(state.value[0]) * of_violation / of_reward)  # in the scales of the first
  np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_utility_by_hand():
  # (1 - 2 * 0.5 - 1 * (-0.25)) / (1 + 3) = 0.0625
  value = utility(jnp.array([1.0]), jnp.array([[0.5, -0.25]]), jnp.array([2.0, 1.0]))
  np.testing.assert_allclose(value, [0.0625])


def test_the_past_is_a_ring_of_feasible_scores():
  past = remember(init_past(4), jnp.array([1.0, 2.0, 3.0]), jnp.array([True, False, True]))
  np.testing.assert_array_equal(past.scores, [1, 3, np.nan, np.nan])
  past = remember(past, jnp.array([4.0, 5.0, 6.0]), jnp.array([True, True, True]))
  np.testing.assert_array_equal(past.scores, [6, 3, 4, 5])
  assert int(past.position) == 1


def test_modes_by_hand():
  past = remember(init_past(8), jnp.array([0.2, 0.4, 0.6]), jnp.ones(3, bool))
  scores = jnp.array([0.1, 0.4, 0.9])
  spread = np.std([0.2, 0.4, 0.6])
  expected = {
    "none": scores,
    "best": scores - 0.6,
    "rank": [0, 0.5, 1],  # beats 0 of 3; beats 1 and ties with 1; beats all 3
    "tanh": np.tanh((np.asarray(scores) - 0.6) / spread),
  }
  assert set(expected) == set(REWARDS)
  for mode, values in expected.items():
    np.testing.assert_allclose(compete(mode, scores, past), values, atol=1e-6, err_msg=mode)
    assert np.isfinite(compete(mode, scores, init_past(8))).all()


def test_affine_competition_has_the_gradient_of_the_plain_score():
  past = remember(init_past(4), jnp.array([0.5]), jnp.ones(1, bool))
  scores = jnp.array([0.1, 0.7, 0.4])
  plain, best = (leave_one_out_advantages(compete(mode, scores, past)) for mode in ("none", "best"))
  np.testing.assert_allclose(plain, best, atol=1e-6)


PPO = PPOConfig(4, 0.2, 0.1, 0.0, 1e-3, 0.1, 1.0)


@pytest.mark.parametrize(
  ("config", "change", "message"),
  [
    (PPO, {"clip": 0.0}, r"ppo clip is 0\.0"),
    (PPO, {"entropy_weight": -1.0}, r"ppo entropy_weight is -1\.0"),
    (DUAL, {"integral": 0.0}, r"integral 0\.0"),
    (DUAL, {"proportional": -0.5}, r"proportional -0\.5"),
  ],
)
def test_impossible_settings_are_refused(config, change, message):
  with pytest.raises(gp.InputError, match=message):
    dataclasses.replace(config, **change)
