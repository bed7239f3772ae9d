"""Moves a search from scores of the cheap level to scores of the configured level.

A cheap score is measured without gradient steps, so that many masks can be scored; the configured
level says more of the accuracy after fine-tuning. Scores of different levels cannot be compared.
Therefore all that a search knows of scores begins anew at the configured level: the incumbent, the
past scores, and the replay. The policy and the multipliers go on, and the critic takes its slopes
along.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import Observation, fit_surrogate
from gatprune_jax.runtime import mesh
from gatprune_jax.search.final_masks import distinct
from gatprune_jax.search.incumbent import Incumbent
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.replay import Replay, init_replay, latest, scored_masks
from gatprune_jax.search.scorer import Scorer
from gatprune_jax.search.update import SearchState, first_past


def rise(
  problem: PruningProblem,
  cheap: Scorer,
  scorer: Scorer,
  observation: Observation,
  state: SearchState,
) -> SearchState:
  """Returns the state before the first update at the configured level.

  The classical masks and the elites of the cheap level are scored at the configured level; the best
  of them is the incumbent.

  Args:
    problem: the network to prune, with its classical masks.
    cheap: scores masks at the cheap level.
    scorer: scores masks at the configured level.
    observation: what the agent sees, on all devices.
    state: the state after the last update at the cheap level, on all devices.
  """
  config = scorer.config
  local = mesh.local(state)
  cheap.remember(*scored_masks(local.replay))
  given = distinct([*(pruner.mask for pruner in problem.pruners), *cheap.best(config.elites)])
  scores, accuracies = scorer(given)
  finite = np.isfinite(scores)  # the critic is fitted to all scores that the replay holds
  replay = init_replay(given[finite], scores[finite], accuracies[finite], len(local.replay.scores))
  best = given[scores.argmax()][None]
  incumbent = Incumbent(
    jnp.asarray(best[0]),
    jnp.asarray(scores.max(), jnp.float32),
    jnp.asarray(scorer.on_confirmation(best)[0]),
  )
  slopes = jnp.zeros_like(local.slopes)
  if config.critic.window:
    channels = mesh.local(observation.channels)
    slopes = mesh.agree(_slopes(config.critic.window, config.critic.prior, local.replay, channels))
  risen = local.replace(
    past=first_past(config, replay),
    replay=replay,
    incumbent=incumbent,
    slopes=slopes,
    given=replay.size,
    cheap_masks=local.replay.size,
  )
  # The update donates its state, so the state is copied here and no two leaves share a buffer.
  return jax.tree.map(jnp.array, risen)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _slopes(window: int, prior: float, replay: Replay, channels: jax.Array) -> jax.Array:
  """Returns the slopes of a critic that is fitted to a replay, standardised, `[N]`."""
  masks, scores, used = latest(replay, window)
  channels = jnp.concatenate([channels, jnp.zeros((len(channels), 1))], axis=1)
  weights = fit_surrogate(masks, scores, used, channels, prior).weights
  return (weights - weights.mean()) / (weights.std() + 1e-8)
