"""Self-competition: rewards that compare a score with the past scores of feasible masks.

An affine comparison ("score minus best") has exactly the same policy gradient as the plain score
once a batch baseline is subtracted. Only the non-linear modes ("rank" and "tanh") change what is
learned.
"""

from collections.abc import Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class PastScores:
  """Ring buffer of the latest scores of feasible masks; unused places hold NaN."""

  scores: jax.Array  # [M]
  position: jax.Array  # scalar int32, place of the next score


def init_past(size: int) -> PastScores:
  """Returns an empty buffer with room for `size` scores."""
  return PastScores(jnp.full(size, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))


def remember(past: PastScores, scores: jax.Array, feasible: jax.Array) -> PastScores:
  """Adds the scores of feasible masks to the buffer, in order, in place of the oldest scores.

  Args:
    past: the buffer.
    scores: `[B]`, where B is at most the size of the buffer.
    feasible: `[B]` bool, whether the mask of each score is feasible.
  """
  size = past.scores.shape[0]
  slot = (past.position + jnp.cumsum(feasible) - 1) % size
  # The scores of infeasible masks get a place past the end, where the scatter drops them.
  slot = jnp.where(feasible, slot, size)
  return PastScores(
    past.scores.at[slot].set(scores, mode="drop"),
    (past.position + feasible.sum().astype(jnp.int32)) % size,
  )


def _none(scores: jax.Array, past: jax.Array) -> jax.Array:
  """R = score."""
  del past
  return scores


def _best(scores: jax.Array, past: jax.Array) -> jax.Array:
  """R = score - best past score."""
  return scores - _finite(jnp.nanmax(past))


def _rank(scores: jax.Array, past: jax.Array) -> jax.Array:
  """R = share of the past scores that the score beats, ties counted half, in [0, 1]."""
  valid = ~jnp.isnan(past)
  score, past = scores[:, None], past[None]
  beats = (score > past) + 0.5 * (score == past)
  return (beats * valid[None]).sum(-1) / jnp.maximum(valid.sum(), 1)


def _tanh(scores: jax.Array, past: jax.Array) -> jax.Array:
  """R = tanh((score - best past score) / standard deviation of the past scores)."""
  spread = jnp.maximum(_finite(jnp.nanstd(past)), 1e-3)
  return jnp.tanh((scores - _finite(jnp.nanmax(past))) / spread)


def _finite(value: jax.Array) -> jax.Array:
  """Replaces the NaN that is the statistic of an empty past by 0."""
  return jnp.nan_to_num(value, nan=0.0)


# A new reward is one entry: a function of scores [B] and past scores [M], of which unused places
# hold NaN, that returns rewards [B].
REWARDS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "none": _none,
  "best": _best,
  "rank": _rank,
  "tanh": _tanh,
}


def compete(mode: str, scores: jax.Array, past: PastScores) -> jax.Array:
  """Computes the reward of each score, compared with the past scores.

  Args:
    mode: a key of `REWARDS`.
    scores: `[B]`.
    past: the past scores of feasible masks.

  Returns:
    The rewards, `[B]`.
  """
  chex.assert_rank([scores, past.scores], 1)
  return REWARDS[mode](scores, past.scores)
