"""The agent's search: it prepares the problem, trains the agent and returns feasible masks."""

from collections.abc import Callable, Sequence
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import ENCODERS, LEARNERS, Learner, Policy, observe, with_embedding
from gatprune_jax.evaluation import Evaluator
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.runs.loop import Steps, run
from gatprune_jax.runtime import mesh
from gatprune_jax.search.acting import mask_actor, policy_logits
from gatprune_jax.search.candidates import candidate_masks, distinct
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.incumbent import Incumbent
from gatprune_jax.search.mdp import greedy_logits, make_decisions, make_environment
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.refinement import neighbours, refine
from gatprune_jax.search.replay import init_replay, scored_masks
from gatprune_jax.search.scorer import Scorer, SearchResult, best_classical
from gatprune_jax.search.update import SearchState, UpdateInputs, init_state, update
from gatprune_jax.search.warm_start import warm_logits


class Progress(NamedTuple):
  """Report of one update."""

  update: int  # number of the update, starting at 1
  metrics: dict[str, np.ndarray]


def search(
  problem: PruningProblem,
  config: SearchConfig | None = None,
  seed: int = 0,
  on_update: Callable[[Progress], None] = lambda progress: None,
  checkpointer: Checkpointer | None = None,
) -> SearchResult:
  """Searches for the masks of highest score within the budgets.

  The agent starts from the best classical pruner: the first logits follow its order of channels,
  and are shifted so that the expected costs are at the budgets. At the end, exchanges of two
  channels are tried around the best candidate.

  Args:
    problem: the network to prune, with its constraints and data.
    config: settings; None means the defaults.
    seed: seed of all random numbers.
    on_update: called after each update; called again for an update that a roll-back repeats.
    checkpointer: saves the state after updates and restores a saved state; None saves nothing.

  Returns:
    The shortlist; every mask satisfies every budget.

  Raises:
    Diverged: if updates keep giving NaN or infinity after roll-backs, or no update is finite.
    Preempted: if the checkpointer was asked to stop.
  """
  config, checkpointer = config or SearchConfig(), checkpointer or NullCheckpointer()
  scorer = Scorer(problem, config)
  policy, learner, inputs, state = prepare(problem, config, scorer, seed)
  num_classical = int(state.replay.size)
  state = learn(scorer, config, learner, inputs, state, on_update, checkpointer)

  scored = scored_masks(state.replay)
  scorer.remember(*scored)
  # A sampled mask that was scored before costs no evaluation, so the evaluation that it saves is
  # spent on an exchange of channels. Skipped updates do not count here: their samples were scored,
  # but the scores were discarded.
  num_sampled = len(scored[0]) - num_classical
  unspent = int(state.health.finite) * config.samples - num_sampled
  # A sample that is feasible in float32 may exceed a budget by a rounding error, so its costs are
  # counted again exactly.
  incumbents = list(filter(problem.constraints.feasible, [np.asarray(state.incumbent.mask)]))
  logits = final_logits(policy, state, inputs)
  score_candidates(problem, config, scorer, logits, incumbents, unspent)
  # The searches without an agent may score equally many masks on the confirmation split.
  masks, scores = scorer.shortlist(scorer.best(config.elites))
  return SearchResult(masks, scores, len(scorer.known), checkpointer.seconds, state)


def learn(
  scorer: Scorer,
  config: SearchConfig,
  learner: Learner,
  inputs: UpdateInputs,
  state: SearchState,
  on_update: Callable[[Progress], None],
  checkpointer: Checkpointer,
) -> SearchState:
  """Makes all updates and returns the last state.

  Args:
    scorer: holds the evaluator of masks.
    config: settings.
    learner: how the policy acts and learns.
    inputs: what every update reads.
    state: the state before the first update; a saved state takes its place.
    on_update: see `search`.
    checkpointer: see `search`.
  """
  update_once = compile_update(config, learner, scorer.evaluator)

  def step(state, number):
    state, metrics = update_once(mesh.replicate(state), inputs)
    on_update(Progress(number, jax.device_get(metrics)))
    return state, state.health.in_a_row

  steps = Steps(
    what="the search",
    finished=lambda done, _: done >= config.updates,
    inputs=lambda done: itertools.count(done + 1),
    step=step,
    health=lambda state: state.health,
    with_health=lambda state, health: state.replace(health=health),
  )
  return run(steps, state, checkpointer)


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
  # The images are on all devices already; all other arrays are copied there below. The initial
  # parameters do not depend on the images, so None stands for the images here.
  inputs = UpdateInputs(environment, observation, None, sample_key)
  learned = jax.jit(learner.init)(policy_key, inputs)
  logits = warm_logits(best.order, config.warm_start, budgets)
  params = with_embedding(learned.params, logits)
  params, observation = mesh.agree((params, observation))
  inputs = UpdateInputs(environment, observation, scorer.images, sample_key)
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


def score_candidates(
  problem: PruningProblem,
  config: SearchConfig,
  scorer: Scorer,
  logits: np.ndarray,
  incumbents: Sequence[np.ndarray],
  unspent: int,
) -> None:
  """Scores the trained policy's candidates, then the neighbours of the best mask scored so far.

  Args:
    problem: the network to prune, with its constraints and data.
    config: settings.
    scorer: holds the scores of all masks so far.
    logits: the policy's final logits, `[N]`.
    incumbents: further feasible masks, bool `[N]` each.
    unspent: number of masks to score beyond the configured refinement.
  """
  elites = scorer.best(config.elites)
  scorer(candidate_masks(problem.constraints, logits, [*incumbents, *elites]))
  best = scorer.best(1)
  refine(
    lambda mask: neighbours(problem.constraints, mask, logits),
    lambda masks: scorer(masks)[0],
    best[0],
    scorer(best)[0][0],
    scorer.known,
    config.refinement + unspent,
    config.samples,
  )


def compile_update(config: SearchConfig, learner: Learner, evaluator: Evaluator) -> Callable:
  """Compiles `update` as a function of (state, inputs) that reuses the state's memory.

  Args:
    config: settings.
    learner: how the policy acts and learns.
    evaluator: scores one mask.
  """
  return evaluator.jit(functools.partial(update, config, learner, evaluator), donate_argnums=0)


def final_logits(policy: Policy, state: SearchState, inputs: UpdateInputs) -> np.ndarray:
  """Returns the trained policy's logits `[N]` in the episode of the likelier bits.

  Args:
    policy: the policy's network.
    state: the last state, which holds the policy's variables.
    inputs: what every update reads.
  """
  logits_of = lambda params, inputs: greedy_logits(
    inputs.environment, policy_logits(policy, params, inputs)
  )
  greedy = jax.jit(logits_of, out_shardings=mesh.everywhere())
  return np.asarray(greedy(state.learner.params, inputs))
