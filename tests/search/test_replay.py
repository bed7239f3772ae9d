"""Tests of the replay: every mask is scored only once, however often it is sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.runtime.maps import first_rows
from gatprune_jax.search.replay import init_replay, score_new, scored_masks

WEIGHTS = jnp.array([1.0, 2, 4, 8])


class Score:
  """A score that reads a mask as a binary number, and records at run time which masks it scores."""

  def __init__(self):
    self.asked = []

  def of_mask(self, mask):
    jax.debug.callback(lambda mask: self.asked.append(np.array(mask)), mask)
    return mask @ WEIGHTS, -(mask @ WEIGHTS)

  def first(self, chunk):
    return lambda masks, count: first_rows(self.of_mask, masks, count, chunk)


def number(code):
  return [bool(code >> bit & 1) for bit in range(4)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_new_masks_are_scored_once_in_whole_chunks(chunk):
  first = np.array([number(5), number(6)])
  replay = init_replay(first, jnp.array([5.0, 6]), jnp.array([-5.0, -6]), capacity=8)
  batch = jnp.array([number(7), number(5), number(7), number(9), number(6), number(2)])
  score = Score()
  step = jax.jit(lambda replay, masks: score_new(replay, masks, score.first(chunk)))
  replay, scores, accuracies = step(replay, batch)
  jax.effects_barrier()
  np.testing.assert_array_equal(scores, [7, 5, 7, 9, 6, 2])
  np.testing.assert_array_equal(accuracies, -scores)
  masks, scores, _ = scored_masks(replay)
  assert masks.tolist() == [number(code) for code in (5, 6, 7, 9, 2)]
  np.testing.assert_array_equal(scores, [5, 6, 7, 9, 2])
  # Three masks are new, so as many whole chunks are computed as are needed for three masks.
  assert len(score.asked) == -(-3 // min(chunk, 6)) * min(chunk, 6)
  # Now all masks are known, so nothing is scored.
  score.asked.clear()
  replay, scores, _ = step(replay, batch)
  jax.effects_barrier()
  np.testing.assert_array_equal(scores, [7, 5, 7, 9, 6, 2])
  assert score.asked == []
  assert int(replay.size) == 5


def test_an_empty_place_is_no_scored_mask():
  replay = init_replay(np.zeros((0, 4), bool), jnp.zeros(0), jnp.zeros(0), capacity=3)
  replay, scores, _ = score_new(replay, jnp.zeros((2, 4), bool), Score().first(2))
  np.testing.assert_array_equal(scores, [0, 0])
  assert int(replay.size) == 1
