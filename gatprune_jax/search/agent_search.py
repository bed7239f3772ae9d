"""The agent's search: it prepares the problem, trains the agent and returns feasible masks."""

from collections.abc import Callable, Sequence
import itertools
from typing import NamedTuple

import jax
import numpy as np

from gatprune_jax.agent import Learner, Policy
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.runs.loop import Steps, run
from gatprune_jax.runtime import mesh
from gatprune_jax.search.acting import policy_logits
from gatprune_jax.search.final_masks import candidate_masks, distinct
from gatprune_jax.search.mdp import greedy_logits
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.refinement import neighbours, refine
from gatprune_jax.search.replay import scored_masks
from gatprune_jax.search.scorer import Scorer, SearchResult
from gatprune_jax.search.search_config import SearchConfig
from gatprune_jax.search.state import SearchState, UpdateInputs
from gatprune_jax.search.update import compile_update


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
  on_exchanges: Callable[[int, int], None] = lambda scored, most: None,
) -> SearchResult:
  """Searches for the masks of highest score within the budgets.

  The agent starts from the best classical pruner: the first logits follow its order of channels,
  and are shifted so that the mean costs are at the budgets. At the end, exchanges of channels are
  tried around the best masks.

  Args:
    problem: the network to prune, with its constraints and data.
    config: settings; None means the defaults.
    seed: seed of all random numbers.
    on_update: called after each update; called again for an update that a roll-back repeats.
    checkpointer: saves the state after updates and restores a saved state; None saves nothing.
    on_exchanges: called with the number of exchanges scored so far, and the largest number of them.

  Returns:
    The shortlist; every mask satisfies every budget, and no channel could be added at no cost.

  Raises:
    Diverged: if updates keep giving NaN or infinity after roll-backs, or no update is finite.
    Preempted: if the checkpointer was asked to stop.
  """
  config, checkpointer = config or SearchConfig(), checkpointer or NullCheckpointer()
  scorer = Scorer(problem, config)
  policy, learner, inputs, state = prepare(problem, config, scorer, seed)
  num_classical = int(state.replay.size)
  state = learn(scorer, learner, inputs, state, on_update, checkpointer)

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
  score_candidates(problem, scorer, logits, incumbents, unspent, on_exchanges)
  # A sample may leave channels out that cost nothing beside those that it keeps. The classical
  # pruners and the searches without an agent have no such masks, because they top all of them up.
  fill = lambda mask: problem.constraints.add_free(mask, logits)
  elites = distinct(list(map(fill, scorer.best(config.elites))))
  # The searches without an agent may score equally many masks on the confirmation split.
  masks, scores = scorer.shortlist(elites)
  # Every update scores one mask on the confirmation images.
  passes = scorer.passes(len(scorer.known), config.updates + len(elites))
  return SearchResult(masks, scores, len(scorer.known), checkpointer.seconds, state, passes)


def learn(
  scorer: Scorer,
  learner: Learner,
  inputs: UpdateInputs,
  state: SearchState,
  on_update: Callable[[Progress], None],
  checkpointer: Checkpointer,
) -> SearchState:
  """Makes all updates and returns the last state.

  Args:
    scorer: holds the settings, and scores masks.
    learner: how the policy acts and learns.
    inputs: what every update reads.
    state: the state before the first update; a saved state takes its place.
    on_update: see `search`.
    checkpointer: see `search`.
  """
  config = scorer.config
  update_once = compile_update(config, learner, scorer)

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


def score_candidates(
  problem: PruningProblem,
  scorer: Scorer,
  logits: np.ndarray,
  incumbents: Sequence[np.ndarray],
  unspent: int,
  on_exchanges: Callable[[int, int], None],
) -> None:
  """Scores the trained policy's candidates, then the neighbours of the best masks scored so far.

  Args:
    problem: the network to prune, with its constraints and data.
    scorer: holds the settings, and the scores of all masks so far.
    logits: the policy's final logits, `[N]`.
    incumbents: further feasible masks, bool `[N]` each.
    unspent: number of masks to score beyond the configured refinement.
    on_exchanges: see `search`.
  """
  config = scorer.config
  elites = scorer.best(config.elites)
  scorer(candidate_masks(problem.constraints, logits, [*incumbents, *elites]))
  before, most = len(scorer.known), config.refinement + unspent

  def score(masks):
    scores = scorer(masks)[0]
    on_exchanges(len(scorer.known) - before, most)
    return scores

  refine(
    lambda mask: neighbours(problem.constraints, mask, logits),
    score,
    scorer.ranked,
    scorer(scorer.best(1))[0][0],
    scorer.known,
    most,
    config.samples,
  )


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
