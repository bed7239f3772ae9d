"""The replay of all scored masks: the critic is fitted to it, and no mask is scored twice."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Replay:
  """Scored masks in the order in which they were added; the first `size` places are used."""

  masks: jax.Array  # [M, N] bool
  scores: jax.Array  # [M]
  accuracies: jax.Array  # [M]
  size: jax.Array  # scalar int32


class Queue(NamedTuple):
  """Which of B masks are to be scored, and where the scores of all of them will be."""

  masks: jax.Array  # [B, N] bool, the new masks first
  count: jax.Array  # scalar int32, how many are new
  where: jax.Array  # [B] int32, the place of each mask in the replay after `add`


def init_replay(
  masks: np.ndarray, scores: jax.Array, accuracies: jax.Array, capacity: int
) -> Replay:
  """Returns a replay that holds distinct scored masks.

  Args:
    masks: `[C, N]` bool.
    scores: `[C]`.
    accuracies: `[C]`.
    capacity: M, the number of places for masks, of which the first C are used.
  """
  num, more = len(masks), capacity - len(masks)
  grow = lambda rows: jnp.concatenate([rows, jnp.zeros((more, *rows.shape[1:]), rows.dtype)])
  return Replay(
    *map(grow, (jnp.asarray(masks), jnp.asarray(scores), jnp.asarray(accuracies))),
    jnp.asarray(num, jnp.int32),
  )


def scored_masks(replay: Replay) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the used places: masks `[C, N]`, scores `[C]` and accuracies `[C]`."""
  num = int(replay.size)
  return tuple(np.asarray(rows)[:num] for rows in (replay.masks, replay.scores, replay.accuracies))


def latest(replay: Replay, num: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the masks and scores that were added last.

  Args:
    replay: the replay.
    num: the number of masks wanted.

  Returns:
    Masks `[W, N]`, scores `[W]`, and whether each row holds a scored mask, bool `[W]`, where W is
    the smaller of `num` and the capacity.
  """
  num = min(num, len(replay.scores))
  place = replay.size - num + jnp.arange(num)
  used, place = place >= 0, jnp.maximum(place, 0)
  return replay.masks[place], replay.scores[place], used


def queue_new(replay: Replay, masks: jax.Array) -> Queue:
  """Returns the masks that the replay does not hold, each once.

  Args:
    replay: a replay with room for B more masks.
    masks: `[B, N]` bool.
  """
  num, capacity = len(masks), len(replay.scores)
  first = (masks[:, None] == masks[None]).all(-1).argmax(1)  # index of the first equal mask, [B]
  used = jnp.arange(capacity) < replay.size
  same = (masks[:, None] == replay.masks[None]).all(-1) & used[None]  # [B, M]
  known = same.any(1)
  new = ~known & (first == jnp.arange(num))
  order = jnp.argsort(~new, stable=True)  # the new masks first
  # A known mask keeps its place. New masks are appended in order, and a repetition within the batch
  # has the place of the first equal mask.
  where = jnp.where(known, same.argmax(1), replay.size + jnp.cumsum(new)[first] - 1)
  return Queue(masks[order], new.sum(dtype=jnp.int32), where)


def add(replay: Replay, queue: Queue, scores: jax.Array, accuracies: jax.Array) -> Replay:
  """Adds the new masks of a queue to the replay that the queue was made for.

  Args:
    replay: the replay.
    queue: from `queue_new`.
    scores: of the masks in the queue, `[B]`, of which the first `count` are read.
    accuracies: likewise.
  """
  place = jnp.arange(len(queue.masks))
  # Rows that are not new get a place past the end, where the scatter drops them.
  place = jnp.where(place < queue.count, replay.size + place, len(replay.scores))
  put = lambda old, rows: old.at[place].set(rows, mode="drop")
  return Replay(
    put(replay.masks, queue.masks),
    put(replay.scores, scores),
    put(replay.accuracies, accuracies),
    replay.size + queue.count,
  )
