"""Tests of the replay: every mask is scored only once, however often it is sampled."""

import jax.numpy as jnp
import numpy as np

from gatprune_jax.search.replay import add, init_replay, queue_new, scored_masks

WEIGHTS = jnp.array([1.0, 2, 4, 8])


def score_new(replay, masks, asked):
  """Adds masks that are scored as binary numbers; `asked` gets the masks that are scored."""
  queue = queue_new(replay, masks)
  asked.extend(queue.masks[: int(queue.count)].tolist())
  scores = queue.masks @ WEIGHTS
  replay = add(replay, queue, scores, -scores)
  return replay, replay.scores[queue.where], replay.accuracies[queue.where]


def number(code):
  return [bool(code >> bit & 1) for bit in range(4)]


def test_new_masks_are_scored_once():
  first = np.array([number(5), number(6)])
  replay = init_replay(first, jnp.array([5.0, 6]), jnp.array([-5.0, -6]), capacity=8)
  batch = jnp.array([number(7), number(5), number(7), number(9), number(6), number(2)])
  asked = []
  replay, scores, accuracies = score_new(replay, batch, asked)
  np.testing.assert_array_equal(scores, [7, 5, 7, 9, 6, 2])
  np.testing.assert_array_equal(accuracies, -scores)
  masks, scores, _ = scored_masks(replay)
  assert masks.tolist() == [number(code) for code in (5, 6, 7, 9, 2)]
  np.testing.assert_array_equal(scores, [5, 6, 7, 9, 2])
  assert asked == [number(code) for code in (7, 9, 2)]
  # Now all masks are known, so nothing is scored.
  asked.clear()
  replay, scores, _ = score_new(replay, batch, asked)
  np.testing.assert_array_equal(scores, [7, 5, 7, 9, 6, 2])
  assert asked == []
  assert int(replay.size) == 5


def test_an_empty_place_is_no_scored_mask():
  replay = init_replay(np.zeros((0, 4), bool), jnp.zeros(0), jnp.zeros(0), capacity=3)
  replay, scores, _ = score_new(replay, jnp.zeros((2, 4), bool), [])
  np.testing.assert_array_equal(scores, [0, 0])
  assert int(replay.size) == 1
