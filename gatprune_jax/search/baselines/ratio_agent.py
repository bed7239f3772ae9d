"""A learner with one continuous action per group, as in AMC (He et al. 2018, arXiv 1802.03494).

An action is a keep ratio for each group; within a group the channels of largest L1 norm are kept.
Ratios are brought to the budgets as those of the searches without a learner are, so every mask is
feasible. AMC learns by DDPG; here a Gaussian policy over log-ratios is trained by the agent's own
PPO, one probability ratio per group. Against the agent it shows what a bit per channel adds.
"""

import functools
import time
from typing import Any

from flax import linen as nn
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax

from gatprune_jax.agent import (
  PPOConfig,
  clipped_objective,
  leave_one_out_advantages,
  make_optimizer,
  observe,
)
from gatprune_jax.criteria import allocate, channel_order, order_by_ratios
from gatprune_jax.errors import InputError
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.scorer import Scorer, SearchResult, best_classical

_CRITERION = "l1"
_FIRST_DEVIATION = 0.5  # of log-ratios: a factor of 1.6
_LEAST_DEVIATION = 0.1  # a policy that has settled still tries masks nearby
_PATIENCE = 20  # updates without a new mask after which the policy has settled


class RatioPolicy(nn.Module):
  """Mean and log standard deviation of each group's log-ratio; zero means at first.

  Attributes:
    width: of the hidden layer.
  """

  width: int

  @nn.compact
  def __call__(self, groups: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps group features `[G, F]` to `[G]` and `[G]`."""
    hidden = nn.tanh(nn.Dense(self.width, name="hidden")(groups))
    head = nn.Dense(1, kernel_init=nn.initializers.zeros, name="head")(hidden)[:, 0]
    embedding = self.param("embedding", nn.initializers.zeros, (len(groups),))
    log_std = self.param("log_std", nn.initializers.constant(np.log(_FIRST_DEVIATION)), (1,))
    log_std = jnp.maximum(log_std, np.log(_LEAST_DEVIATION))
    return head + embedding, jnp.broadcast_to(log_std, head.shape)


def search_ratios(
  problem: PruningProblem, config: SearchConfig, evaluations: int, seed: int
) -> SearchResult:
  """Learns ratios until as many distinct masks are scored as an agent did.

  It ends earlier where the policy has settled and proposes nothing new.

  Args:
    problem: what to prune; its saliency includes "l1".
    config: the agent's settings.
    evaluations: the agent's `SearchResult.evaluations`.
    seed: of everything random.

  Raises:
    InputError: where the task has no L1 norms.
  """
  if _CRITERION not in problem.saliency:
    raise InputError(
      f"ratio_agent ranks channels by {_CRITERION!r}, which is not among the criteria "
      f"{', '.join(problem.saliency)}: add it"
    )
  start = time.monotonic()
  constraints, scorer = problem.constraints, Scorer(problem, config)
  graph = constraints.graph
  best_classical(problem, scorer)
  within = channel_order(graph, problem.saliency[_CRITERION], "global")
  channels = observe(
    graph, problem.network.variables, problem.saliency, constraints.budgets, edge_norms=False
  ).channels
  groups = jnp.asarray(np.stack([channels[group.channels].mean(0) for group in graph.groups]))

  policy = RatioPolicy(config.policy.heads * config.policy.head_features)
  init_key, key = jax.random.split(jax.random.key(seed))
  params = policy.init(init_key, groups)
  opt_state = make_optimizer(config.ppo, params).init(ravel_pytree(params)[0])
  improve = jax.jit(functools.partial(improve_ratios, policy, config.ppo))
  update, stale = 0, 0
  while (left := evaluations - len(scorer.known)) > 0 and stale < _PATIENCE:
    mean, log_std = policy.apply(params, groups)
    noise = jax.random.normal(jax.random.fold_in(key, update), (config.samples, len(graph.groups)))
    actions = mean[None] + jnp.exp(log_std)[None] * noise
    orders = [order_by_ratios(graph, within, ratios) for ratios in np.exp(actions)]
    masks = [allocate(constraints, order) for order in orders]
    new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in scorer.known}
    if len(new) > left:
      scorer(np.stack(list(new.values())[:left]))
      break
    scores, _ = scorer(np.stack(masks))
    if np.isfinite(scores).all():
      advantage = leave_one_out_advantages(jnp.asarray(scores))
      params, opt_state = improve(params, opt_state, groups, actions, advantage)
    update, stale = update + 1, 0 if new else stale + 1
  masks, scores = scorer.shortlist(scorer.best(config.elites))
  return SearchResult(masks, scores, len(scorer.known), time.monotonic() - start, None)


def improve_ratios(
  policy: RatioPolicy,
  ppo: PPOConfig,
  params: Any,
  opt_state: Any,
  groups: jax.Array,
  actions: jax.Array,
  advantage: jax.Array,
) -> tuple[Any, Any]:
  """Epochs of PPO on one batch of actions.

  Args:
    policy: of the ratios.
    ppo: settings.
    params: the policy's variables.
    opt_state: of `make_optimizer`.
    groups: features of each group, `[G, F]`.
    actions: log-ratios as sampled, `[B, G]`.
    advantage: of each sample, `[B]`.

  Returns:
    The new variables and optimiser state.
  """
  optimizer = make_optimizer(ppo, params)
  vector, as_params = ravel_pytree(params)

  def log_prob(vector):  # of each action, up to a constant
    mean, log_std = policy.apply(as_params(vector), groups)
    return -0.5 * ((actions - mean[None]) / jnp.exp(log_std)[None]) ** 2 - log_std[None]

  old = log_prob(vector)

  def loss_fn(vector):
    return -clipped_objective(log_prob(vector), old, advantage[:, None], ppo.clip).mean()

  def epoch(_, carry):
    vector, opt_state = carry
    updates, opt_state = optimizer.update(jax.grad(loss_fn)(vector), opt_state)
    return optax.apply_updates(vector, updates), opt_state

  vector, opt_state = jax.lax.fori_loop(0, ppo.epochs, epoch, (vector, opt_state))
  return as_params(vector), opt_state
