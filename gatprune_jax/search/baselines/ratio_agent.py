"""A learner with one continuous action per group, as in AMC (He et al. 2018, arXiv 1802.03494).

An action is a keep ratio for each group; within a group the channels of largest L1 norm are kept.
Ratios are scaled to the budgets as in the searches without a learner (`equal_budget`), so every
mask is feasible. AMC learns by DDPG; here a Gaussian policy over log-ratios is trained by the
agent's own PPO, with one probability ratio per group. The comparison with the agent shows what is
gained by deciding one bit per channel.
"""

import dataclasses
import itertools
import math
import time
from typing import Any

from flax import linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import (
  LEARNERS,
  Actor,
  Distribution,
  Experience,
  Learner,
  LearnerState,
  gaussian,
  observe,
  sample,
)
from gatprune_jax.criteria import allocate, channel_order, order_by_ratios
from gatprune_jax.errors import InputError
from gatprune_jax.runs.checkpointer import NullCheckpointer
from gatprune_jax.runs.health import Health, all_finite, healthy, take_if_finite
from gatprune_jax.runs.loop import Steps, run
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.scorer import Scorer, SearchResult, best_classical
from gatprune_jax.search.search_config import SearchConfig

_CRITERION = "l1"
_FIRST_DEVIATION = 0.5  # of log-ratios, which is a factor of 1.6 in the ratios
_LEAST_DEVIATION = 0.1  # so that a policy that has settled still tries masks nearby
_PATIENCE = 20  # updates in a row without a new mask, after which the search ends


class RatioPolicy(nn.Module):
  """Network for the mean and log standard deviation of each group's log-ratio.

  All means are zero at first.

  Attributes:
    width: width of the hidden layer.
  """

  width: int

  @nn.compact
  def __call__(self, groups: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps group features `[G, F]` to means `[G]` and log standard deviations `[G]`."""
    hidden = nn.tanh(nn.Dense(self.width, name="hidden")(groups))
    head = nn.Dense(1, kernel_init=nn.initializers.zeros, name="head")(hidden)[:, 0]
    embedding = self.param("embedding", nn.initializers.zeros, (len(groups),))
    log_std = self.param("log_std", nn.initializers.constant(np.log(_FIRST_DEVIATION)), (1,))
    log_std = jnp.maximum(log_std, np.log(_LEAST_DEVIATION))
    return head + embedding, jnp.broadcast_to(log_std, head.shape)


def ratio_actor(policy: RatioPolicy) -> Actor:
  """Returns an actor with log-ratios `[G]` as actions and group features `[G, F]` as inputs."""

  def distribution(params: Any, groups: jax.Array, actions: jax.Array) -> Distribution:
    mean, log_std = policy.apply(params, groups)
    as_actions = lambda row: jnp.broadcast_to(row, actions.shape)
    return gaussian(as_actions(mean), as_actions(jnp.exp(log_std)))

  def act(
    params: Any, groups: jax.Array, num: int, key: jax.Array
  ) -> tuple[jax.Array, Distribution]:
    drawn_from = distribution(params, groups, jnp.zeros((num, len(groups))))
    return sample(key, drawn_from), drawn_from

  return Actor(policy.init, act, distribution)


@flax.struct.dataclass
class RatioState:
  """State of the search between two updates; the scorer holds the masks scored so far."""

  learner: LearnerState
  stale: int  # updates in a row that proposed no new mask
  health: Health


def search_ratios(
  problem: PruningProblem, scorer: Scorer, evaluations: int, seed: int
) -> SearchResult:
  """Learns ratios until the given number of distinct masks is scored.

  The search ends earlier if the policy has settled and proposes no new masks.

  Args:
    problem: the network to prune, with its constraints and data; its saliency includes "l1".
    scorer: scores the problem's masks, by the agent's settings.
    evaluations: number of masks to score; see `SearchResult.passes` for what an agent spent.
    seed: seed of all random numbers.

  Raises:
    InputError: if the problem's saliency has no L1 norms.
    Diverged: if updates keep giving NaN or infinity after roll-backs, or no update is finite.
  """
  if _CRITERION not in problem.saliency:
    raise InputError(
      f"ratio_agent ranks channels by {_CRITERION!r}, which is not among the criteria "
      f"{', '.join(problem.saliency)}: add it"
    )
  start = time.monotonic()
  config = scorer.config
  learner = _learner(config)
  best_classical(problem, scorer)
  groups = _group_features(problem)
  init_key, key = jax.random.split(jax.random.key(seed))
  learn = jax.jit(learner.update)

  def step(state, number):
    key_now = jax.random.fold_in(key, number)
    actions, behaviour = learner.act(state.learner, groups, config.samples, key_now)
    masks = _masks(problem, np.exp(actions))
    new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in scorer.known}
    left = evaluations - len(scorer.known)
    if len(new) > left:
      # The search ends with these evaluations, so there is no reason to update the policy.
      scorer(np.stack(list(new.values())[:left]))
      state = take_if_finite(jnp.array(True), state, state)
      return state, state.health.in_a_row
    scores = jnp.asarray(scorer(np.stack(masks))[0])
    experience = Experience(actions, behaviour, scores)
    learned, _ = learn(state.learner, groups, experience, state.health.rate)
    after = state.replace(learner=learned, stale=0 if new else state.stale + 1)
    after = take_if_finite(all_finite((scores, learned)), after, state)
    return after, after.health.in_a_row

  steps = Steps(
    what="the search for ratios",
    finished=lambda _, state: len(scorer.known) >= evaluations or state.stale >= _PATIENCE,
    inputs=itertools.count,
    step=step,
    health=lambda state: state.health,
    with_health=lambda state, health: state.replace(health=health),
  )
  run(steps, RatioState(learner.init(init_key, groups), 0, healthy()), NullCheckpointer())
  return scorer.result(time.monotonic() - start)


def _learner(config: SearchConfig) -> Learner:
  """Returns the agent's learner for ratios: without a critic, and without a limit on the KL.

  The critic is a function of bits. The standard deviation of the Gaussian is learned too, so that
  the KL divergence soon reaches the limit that suits bits.
  """
  critic = dataclasses.replace(config.critic, window=0)
  ppo = dataclasses.replace(config.ppo, kl_stop=math.inf)
  policy = RatioPolicy(config.policy.heads * config.policy.head_features)
  own = dataclasses.replace(config, critic=critic, ppo=ppo)
  return LEARNERS[config.learner](own, ratio_actor(policy))


def _group_features(problem: PruningProblem) -> jax.Array:
  """Returns the mean of the agent's channel features in each group, `[G, F]`."""
  graph, budgets = problem.constraints.graph, problem.constraints.budgets
  variables = problem.network.variables
  channels = observe(graph, variables, problem.saliency, budgets, edge_norms=False).channels
  return jnp.asarray(np.stack([channels[group.channels].mean(0) for group in graph.groups]))


def _masks(problem: PruningProblem, ratios: np.ndarray) -> list[np.ndarray]:
  """Returns the mask within the budgets for each row of ratios `[B, G]`."""
  constraints = problem.constraints
  within = channel_order(constraints.graph, problem.saliency[_CRITERION], "global")
  orders = [order_by_ratios(constraints.graph, within, row) for row in ratios]
  return [allocate(constraints, order) for order in orders]
