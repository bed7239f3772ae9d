"""Prepares the agent's search: observation, policy, learner, and the state before any update."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import ENCODERS, LEARNERS, Learner, Policy, observe, with_embedding
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.search.acting import mask_actor
from gatprune_jax.search.final_masks import distinct
from gatprune_jax.search.incumbent import Incumbent
from gatprune_jax.search.mdp import make_decisions, make_environment
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.replay import init_replay
from gatprune_jax.search.scorer import Scorer, best_classical
from gatprune_jax.search.search_config import SearchConfig
from gatprune_jax.search.state import SearchState, UpdateInputs, init_state
from gatprune_jax.search.warm_start import warm_logits


class Prepared(NamedTuple):
  """All parts of a search before its first update."""

  policy: Policy
  learner: Learner
  inputs: UpdateInputs
  state: SearchState


def prepare(problem: PruningProblem, config: SearchConfig, scorer: Scorer, seed: int) -> Prepared:
  """Scores the classical masks, and builds the policy and the state before the first update.

  Args:
    problem: the network to prune, with its constraints and data.
    config: settings.
    scorer: scores the classical masks and keeps their scores.
    seed: seed of all random numbers.
  """
  graph, budgets = problem.constraints.graph, problem.constraints.budgets
  best = best_classical(problem, scorer)
  incumbent = Incumbent(
    jnp.asarray(best.mask),
    jnp.asarray(scorer(best.mask[None])[0][0], jnp.float32),
    jnp.asarray(scorer.on_confirmation(best.mask[None])[0]),
  )
  observation = observe(
    graph, problem.network.variables, problem.saliency, budgets, config.policy.edge_norms
  )
  lay_out = ENCODERS[config.policy.encoder].lay_out
  num_nodes = len(observation.channels) + len(observation.layers)
  observation = observation._replace(edges=lay_out(observation.edges, num_nodes))
  decisions = make_decisions(graph, config.schedule)
  environment = make_environment(problem.constraints, decisions, -best.order, config.constraint)
  policy_key, sample_key = jax.random.split(jax.random.key(seed))
  policy = Policy(config.policy, len(graph.groups))
  learner = LEARNERS[config.learner](config, mask_actor(policy))
  inputs = UpdateInputs(environment, observation, sample_key)
  learned = compilation.call_once(learner.init, policy_key, inputs)
  logits = warm_logits(best.order, config.warm_start, environment)
  params = with_embedding(learned.params, logits)
  params, observation = mesh.agree((params, observation))
  inputs = UpdateInputs(environment, observation, sample_key)
  classical = distinct([pruner.mask for pruner in problem.pruners])
  scores, accuracies = scorer(classical)
  finite = np.isfinite(scores)  # the critic is fitted to all scores that the replay holds
  # There is room for the masks of all pruners, even if some are equal, so that the shapes do not
  # depend on seed or budget and one compiled program serves all of them.
  capacity = len(problem.pruners) + config.updates * config.samples
  replay = init_replay(classical[finite], scores[finite], accuracies[finite], capacity)
  learned = learned.replace(params=params)
  state = init_state(config, len(budgets.names), learned, incumbent, replay)
  # The update donates its state, so the state is copied here and shares no buffer with the inputs.
  state = jax.tree.map(jnp.array, state)
  return Prepared(policy, learner, mesh.replicate(inputs), state)
