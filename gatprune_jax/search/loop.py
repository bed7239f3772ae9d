"""The agent's search: prepare the problem, learn, return a shortlist of feasible masks."""

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
  """What is known after an update."""

  update: int  # from 1
  metrics: dict[str, np.ndarray]


def search(
  problem: PruningProblem,
  config: SearchConfig | None = None,
  seed: int = 0,
  on_update: Callable[[Progress], None] = lambda progress: None,
  checkpointer: Checkpointer | None = None,
) -> SearchResult:
  """Searches for the masks of highest score within the budgets.

  The agent starts from the best classical pruner: its order of channels sets the first logits,
  shifted so that the expected costs are at the budgets. At the end, exchanges of two channels
  are tried around the best candidate.

  Args:
    problem: what to prune.
    config: settings; None: the defaults.
    seed: of everything random.
    on_update: called after each update, again after those that a roll-back repeats.
    checkpointer: where the state is saved after updates, and was saved; None saves nothing.

  Returns:
    The shortlist; every mask satisfies every budget.

  Raises:
    Diverged: where updates are not finite, again and again, or none is.
    Preempted: where the checkpointer was asked to stop.
  """
  config, checkpointer = config or SearchConfig(), checkpointer or NullCheckpointer()
  scorer = Scorer(problem, config)
  policy, learner, inputs, state = prepare(problem, config, scorer, seed)
  num_classical = int(state.replay.size)
  state = learn(scorer, config, learner, inputs, state, on_update, checkpointer)

  scored = scored_masks(state.replay)
  scorer.remember(*scored)
  # Samples that were known cost nothing: what they leave is spent on exchanges. Those of updates
  # that were skipped were scored, and forgotten.
  num_sampled = len(scored[0]) - num_classical
  unspent = int(state.health.finite) * config.samples - num_sampled
  # A sample counted feasible in float32 may exceed a budget by a rounding: count exactly.
  incumbents = list(filter(problem.constraints.feasible, [np.asarray(state.incumbent.mask)]))
  logits = final_logits(policy, state, inputs)
  score_candidates(problem, config, scorer, logits, incumbents, unspent)
  # As many as the searches without an agent may put before the confirmation split.
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
  """The state after all updates, from the given or the saved one."""
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
  """A search before its first update."""

  policy: Policy
  learner: Learner
  inputs: UpdateInputs
  state: SearchState


def prepare(problem: PruningProblem, config: SearchConfig, scorer: Scorer, seed: int) -> Prepared:
  """Scores the classical masks; makes the policy and the state before the first update."""
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
  # The images are on all devices already; everything else is put there below.
  inputs = UpdateInputs(environment, observation, None, sample_key)
  learned = jax.jit(learner.init)(policy_key, inputs)
  logits = warm_logits(best.order, config.warm_start, budgets)
  params = with_embedding(learned.params, logits)
  params, observation = mesh.agree((params, observation))
  inputs = UpdateInputs(environment, observation, scorer.images, sample_key)
  classical = distinct([pruner.mask for pruner in problem.pruners])
  scores, accuracies = scorer(classical)
  finite = np.isfinite(scores)  # the critic learns from all that the replay holds
  # Room for all pruners' masks, equal ones too, so that every seed and budget runs one program.
  capacity = len(problem.pruners) + config.updates * config.samples
  replay = init_replay(classical[finite], scores[finite], accuracies[finite], capacity)
  learned = learned.replace(params=params)
  state = init_state(config, len(budgets.names), learned, incumbent, replay)
  # No buffer is shared with the inputs: the update donates its state.
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
  """Scores what the policy ends with, and the neighbours of the best mask then known.

  Args:
    problem: what is pruned.
    config: settings.
    scorer: knows every mask scored so far.
    logits: the policy's, `[N]`.
    incumbents: further feasible masks.
    unspent: masks to score beyond the configured refinement.
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
  """`update` as one compiled call of (state, inputs); the state's memory is re-used."""
  return evaluator.jit(functools.partial(update, config, learner, evaluator), donate_argnums=0)


def final_logits(policy: Policy, state: SearchState, inputs: UpdateInputs) -> np.ndarray:
  """The trained policy's logits where every bit is the likelier one, `[N]`."""
  logits_of = lambda params, inputs: greedy_logits(
    inputs.environment, policy_logits(policy, params, inputs)
  )
  greedy = jax.jit(logits_of, out_shardings=mesh.everywhere())
  return np.asarray(greedy(state.learner.params, inputs))
