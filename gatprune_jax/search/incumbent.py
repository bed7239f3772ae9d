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
  arena: jax.Array  # [a] score of each arena image


def challenge(incumbent: Incumbent, challenger: Incumbent) -> Incumbent:
  """The challenger where it wins on the reward split and, by a standard error, in the arena.

  The largest of many noisy scores is too high by construction; the arena's paired difference is
  on images that did not choose the challenger. Who is not finite in the arena loses to who is.
  """
  difference = challenger.arena - incumbent.arena
  standard_error = difference.std(ddof=1) / jnp.sqrt(difference.shape[0])
  better = (challenger.score > incumbent.score) & (difference.mean() > standard_error)
  wins = all_finite((challenger.score, challenger.arena)) & (better | ~all_finite(incumbent.arena))
  return jax.tree.map(lambda new, old: jnp.where(wins, new, old), challenger, incumbent)
