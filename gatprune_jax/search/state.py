"""What a search starts from and changes: the constant inputs of its updates, and its state."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.agent import (
  LearnerState,
  Multipliers,
  Observation,
  PastScores,
  init_multipliers,
  init_past,
  remember,
)
from gatprune_jax.runs.health import Health, healthy
from gatprune_jax.search.incumbent import Incumbent
from gatprune_jax.search.mdp import Environment
from gatprune_jax.search.replay import Replay
from gatprune_jax.search.search_config import SearchConfig


class UpdateInputs(NamedTuple):
  """Constant inputs of every update; arrays only, so it can be an argument under jit."""

  environment: Environment
  observation: Observation
  key: jax.Array


@flax.struct.dataclass
class SearchState:
  """State of the search between two updates."""

  step: jax.Array  # scalar int32
  learner: LearnerState
  multipliers: Multipliers
  past: PastScores
  replay: Replay
  incumbent: Incumbent
  health: Health


def init_state(
  config: SearchConfig,
  num_constraints: int,
  learner: LearnerState,
  incumbent: Incumbent,
  replay: Replay,
) -> SearchState:
  """Returns the state before the first update.

  Args:
    config: settings.
    num_constraints: K, the number of budgets.
    learner: the initial state of the learner.
    incumbent: the best classical mask.
    replay: holds the classical masks; their scores are the first past scores of self-competition.
  """
  # If more scores were written at once than the ring buffer holds, it would be undefined which ones
  # stay.
  past = replay.scores[: min(int(replay.size), config.past_scores)]
  return SearchState(
    step=jnp.zeros((), jnp.int32),
    learner=learner,
    multipliers=init_multipliers(num_constraints),
    past=remember(init_past(config.past_scores), past, jnp.ones(len(past), bool)),
    replay=replay,
    incumbent=incumbent,
    health=healthy(),
  )
