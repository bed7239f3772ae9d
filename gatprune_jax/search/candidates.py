"""From a trained policy to masks that satisfy every budget, exactly counted."""

from collections.abc import Sequence

import jax
import numpy as np

from gatprune_jax.agent import Policy
from gatprune_jax.channels import Budgets, ChannelGraph, ranks
from gatprune_jax.criteria import allocate
from gatprune_jax.search.mdp import greedy_logits
from gatprune_jax.search.update import Problem, SearchState, policy_logits


def candidate_masks(
  graph: ChannelGraph,
  budgets: Budgets,
  floors: np.ndarray,
  policy: Policy,
  state: SearchState,
  problem: Problem,
) -> np.ndarray:
  """Distinct feasible masks, bool `[C, N]`, at least one.

  The multipliers bring the policy's *mean* cost to the budget, so about half of its samples
  are infeasible. Candidates are the threshold on the policy's logits that meets the budgets,
  the incumbent, and the best feasible samples; each spends what it leaves of the budget on the
  channels the policy likes best.

  Args:
    graph: the network's channels.
    budgets: the constraints; the floors are within them.
    floors: fewest channels of each group.
    policy: the network.
    state: after the last update.
    problem: what the agent observed.
  """
  logits_of = lambda params: greedy_logits(
    problem.environment, policy_logits(policy, params, problem)
  )
  logits = np.asarray(jax.jit(logits_of)(state.params))
  order = ranks(logits)
  masks = [allocate(graph, budgets, floors, order)]
  sampled = np.asarray(state.elites.masks)[np.isfinite(state.elites.scores)]
  # A sample counted feasible in float32 may exceed a budget by a rounding: count exactly.
  for mask in (np.asarray(state.incumbent.mask), *sampled):
    if budgets.feasible(mask):
      masks.append(budgets.top_up(mask, logits))
  return distinct(masks)


def distinct(masks: Sequence[np.ndarray]) -> np.ndarray:
  """The masks without repetitions, in order, bool `[C, N]`."""
  return np.stack(list({mask.tobytes(): mask for mask in masks}.values()))
