"""Self-competition: the agent's reward is how it does against its own feasible past.

An affine comparison ("score minus best") has exactly the gradient of the plain score once a batch
baseline is subtracted; only the non-linear modes change what is learned.
"""

from collections.abc import Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class PastScores:
  """The latest scores of feasible masks, a ring buffer; unused places hold NaN."""

  scores: jax.Array  # [M]
  position: jax.Array  # scalar int32, where the next score goes


def init_past(size: int) -> PastScores:
  """An empty buffer of `size` scores."""
  return PastScores(jnp.full(size, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))


def remember(past: PastScores, scores: jax.Array, feasible: jax.Array) -> PastScores:
  """Adds the scores `[B]` whose mask is feasible `[B]` bool, in order, over the oldest."""
  size = past.scores.shape[0]
  slot = (past.position + jnp.cumsum(feasible) - 1) % size
  # Infeasible scores go to a place past the end, where a scatter drops them.
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
  """R = share of the past that the score beats, ties counted half, in [0, 1]."""
  valid = ~jnp.isnan(past)
  score, past = scores[:, None], past[None]
  beats = (score > past) + 0.5 * (score == past)
  return (beats * valid[None]).sum(-1) / jnp.maximum(valid.sum(), 1)


def _tanh(scores: jax.Array, past: jax.Array) -> jax.Array:
  """R = tanh((score - best past score) / standard deviation of the past)."""
  spread = jnp.maximum(_finite(jnp.nanstd(past)), 1e-3)
  return jnp.tanh((scores - _finite(jnp.nanmax(past))) / spread)


def _finite(value: jax.Array) -> jax.Array:
  """0 for the statistics of an empty past."""
  return jnp.nan_to_num(value, nan=0.0)


# A new reward is one function of scores [B] and past scores [M] (NaN: unused), and one entry.
REWARDS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "none": _none,
  "best": _best,
  "rank": _rank,
  "tanh": _tanh,
}


def compete(mode: str, scores: jax.Array, past: PastScores) -> jax.Array:
  """The reward of each score `[B]` against the past, `[B]`; mode is a key of `REWARDS`."""
  chex.assert_rank([scores, past.scores], 1)
  return REWARDS[mode](scores, past.scores)
