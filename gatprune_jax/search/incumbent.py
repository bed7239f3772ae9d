"""The incumbent, which is the mask to beat, and the test by which another mask replaces it."""

import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.runs.health import all_finite


@flax.struct.dataclass
class Incumbent:
  """The mask to beat; only a mask that wins on both splits replaces it."""

  mask: jax.Array  # [N] bool
  score: jax.Array  # scalar, mean score on the reward split
  confirmation: jax.Array  # [a] score of each confirmation image


def challenge(incumbent: Incumbent, challenger: Incumbent) -> Incumbent:
  """Returns the challenger if it wins on both splits, else the incumbent.

  On the reward split, the higher score wins. But the largest of many noisy scores is too high by
  construction. The confirmation split was not used to choose the challenger, so the mean of the
  paired differences d on this split does not have this bias. The challenger wins on it if the mean
  difference exceeds its standard error:

    mean(d) > std(d) / sqrt(number of examples)

  A mask whose score is not finite on the confirmation split loses to one whose score is.
  """
  difference = challenger.confirmation - incumbent.confirmation
  standard_error = difference.std(ddof=1) / jnp.sqrt(difference.shape[0])
  better = (challenger.score > incumbent.score) & (difference.mean() > standard_error)
  better |= ~all_finite(incumbent.confirmation)
  wins = better & all_finite((challenger.score, challenger.confirmation))
  return jax.tree.map(lambda new, old: jnp.where(wins, new, old), challenger, incumbent)
