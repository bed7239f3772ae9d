"""The mask to beat, and when another one does."""

import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.runs.health import all_finite


@flax.struct.dataclass
class Incumbent:
  """The mask to beat. Replaced only by one that wins on both splits."""

  mask: jax.Array  # [N] bool
  score: jax.Array  # scalar, on the reward split
  confirmation: jax.Array  # [a] score of each confirmation image


def challenge(incumbent: Incumbent, challenger: Incumbent) -> Incumbent:
  """The challenger where it wins on both splits, on the confirmation split by a standard error.

  The largest of many noisy scores is too high by construction. The confirmation split did not
  choose the challenger, so that the mean of its paired differences d is not:

    mean(d) > std(d) / sqrt(number of examples)

  A mask that is not finite on the confirmation split loses to one that is.
  """
  difference = challenger.confirmation - incumbent.confirmation
  standard_error = difference.std(ddof=1) / jnp.sqrt(difference.shape[0])
  better = (challenger.score > incumbent.score) & (difference.mean() > standard_error)
  better |= ~all_finite(incumbent.confirmation)
  wins = better & all_finite((challenger.score, challenger.confirmation))
  return jax.tree.map(lambda new, old: jnp.where(wins, new, old), challenger, incumbent)
