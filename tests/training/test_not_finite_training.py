"""Tests of training whose numbers are not finite, and of training that is interrupted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION, Network
from gatprune_jax.runs.file_checkpointer import FileCheckpointer
from gatprune_jax.runs.health import Diverged
from gatprune_jax.runtime.preemption import Preempted
from gatprune_jax.training import train, train_candidates
from tests.training.test_training import RECIPE

KEY = jax.random.key(3)


def checkpointer_in(path, every=1, stop=0):
  return FileCheckpointer(str(path), {}, {}, 3, every, functools.partial(int.__eq__, stop))


def assert_finite(tree):
  for leaf in jax.tree.leaves(tree):
    assert np.isfinite(leaf).all()


def test_a_batch_that_is_not_finite_is_skipped(two_layers):
  e = two_layers
  x = e.x.copy()
  x[5] = np.nan
  epochs = []
  trained = train(
    e.network, CLASSIFICATION, Split(x, e.y), RECIPE, KEY,
    lambda epoch, metrics, variables: epochs.append(metrics["loss"]),
  )  # fmt: skip
  assert_finite(trained)
  # One batch of every epoch contains the image, so the mean of every epoch is NaN.
  assert np.isnan(epochs).all()
  moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), trained, e.variables)
  # The steps on the other batches change every array.
  assert min(jax.tree.leaves(moved)) > 0


def test_images_that_are_not_finite_end_it(two_layers, tmp_path):
  e = two_layers
  recipe = dataclasses.replace(RECIPE, epochs=20)
  with pytest.raises(Diverged, match=r"training is not finite: 3 updates in a row up to step \d"):
    train(
      e.network,
      CLASSIFICATION,
      Split(e.x * np.inf, e.y),
      recipe,
      KEY,
      checkpointer=checkpointer_in(tmp_path),
    )


def test_weights_that_no_step_could_change_are_not_returned(two_layers):
  # There are too few steps for three roll-backs.
  e = two_layers
  recipe = dataclasses.replace(RECIPE, epochs=1, warmup_epochs=0.0)
  with pytest.raises(Diverged, match="training is not finite: all 3 updates gave NaN or infinity"):
    train(e.network, CLASSIFICATION, Split(e.x * np.inf, e.y), recipe, KEY)


def test_going_back_to_nothing_saved_takes_nothing_back(two_layers, tmp_path):
  # Training goes on from the current step, so the metrics of steps that are not repeated stay.
  e = two_layers
  told = []
  checkpointer = FileCheckpointer(str(tmp_path), {}, {}, 3, 1000, on_restore=told.append)
  recipe = dataclasses.replace(RECIPE, epochs=20)
  with pytest.raises(Diverged):
    train(
      e.network, CLASSIFICATION, Split(e.x * np.inf, e.y), recipe, KEY, checkpointer=checkpointer
    )
  assert told[:2] == [0, 3]  # at the beginning, and after three steps


def train_one_weight(limit, epochs, checkpointer, on_epoch=lambda *told: None):
  """Trains the single weight w of a network, one step per epoch, and returns w.

  The logits are (w, 0) and the label is 0, so the gradient is sigmoid(w) - 1 and every step raises
  w.

  Args:
    limit: the loss is NaN where w exceeds this limit.
    epochs: number of steps.
    checkpointer: saves and restores the state.
    on_epoch: called with epoch, metrics and variables after each epoch.
  """

  def train_fn(variables, x):
    w = jnp.broadcast_to(variables["params"]["w"], (x.shape[0],))
    return jnp.stack([jnp.where(w > limit, jnp.nan, w), jnp.zeros_like(w)], axis=1), {}

  recipe = dataclasses.replace(
    RECIPE, epochs=epochs, batch_size=2, learning_rate=0.3, warmup_epochs=0.0, momentum=0.0,
    weight_decay=0.0, label_smoothing=0.0, shift=0, flip=False,
  )  # fmt: skip
  split = Split(np.ones((2, 1, 1, 1), np.float32), np.zeros(2, np.int32))
  network = Network(None, train_fn, {"params": {"w": jnp.zeros(1)}})
  trained = train(network, CLASSIFICATION, split, recipe, KEY, on_epoch, checkpointer=checkpointer)
  return trained["params"]["w"][0]


def test_it_goes_back_and_learns_more_slowly(tmp_path):
  # Steps at the rate 0.3 without momentum raise w to 0.15, 0.285, 0.402, 0.497, 0.572, 0.626, so
  # the network fails after the sixth step.
  losses = {}
  told = lambda epoch, metrics, variables: losses.update({epoch: metrics["loss"]})
  trained = train_one_weight(0.62, 10, checkpointer_in(tmp_path, every=4), told)
  w, rate, expected = 0.0, 1.0, []
  # These are the steps that count in the end: from step 4 on, where training rolled back to, the
  # rate is halved.
  for step in range(10):
    rate = 1.0 if step < 4 else 0.5
    expected.append(np.log1p(np.exp(-w)))
    w += rate * 0.15 * (1 + np.cos(np.pi * step / 10)) / (1 + np.exp(w))
  np.testing.assert_allclose(trained, w, rtol=1e-5)
  assert w < 0.62
  np.testing.assert_allclose([losses[epoch] for epoch in range(1, 11)], expected, rtol=1e-5)


def test_steps_that_were_taken_back_do_not_count_at_the_end(tmp_path):
  # On the way to six steps, six updates fail in all, because training rolls back to the first step
  # twice. The updates that lead to the result are finite nevertheless.
  with pytest.raises(Preempted):
    train_one_weight(0.24, 6, checkpointer_in(tmp_path, 100, 1))
  assert 0.1 < train_one_weight(0.24, 6, checkpointer_in(tmp_path, 100)) < 0.3


@pytest.mark.parametrize("stop", [1, 3, 4, 9])
def test_it_goes_on_from_any_step_bit_for_bit(two_layers, tmp_path, stop):
  # There are three epochs of three steps. The steps at which training stops include ends of epochs.
  e = two_layers
  run = lambda lines, checkpointer=None: train(
    e.network, CLASSIFICATION, Split(e.x, e.y), RECIPE, KEY,
    lambda epoch, metrics, variables: lines.append((epoch, metrics)), checkpointer=checkpointer,
  )  # fmt: skip
  whole = []
  expected = run(whole)
  first, second = [], []
  with pytest.raises(Preempted):
    run(first, checkpointer_in(tmp_path, 2, stop))
  trained = run(second, checkpointer_in(tmp_path, 2))
  for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(trained), strict=True):
    np.testing.assert_array_equal(a, b)
  # If training stops at the end of an epoch, the process that goes on reports that epoch.
  assert first + second == whole
  third = []
  again = run(third, checkpointer_in(tmp_path, 2))  # a finished training repeats no step
  assert third == whole[-1:]
  for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


def test_candidates_go_on_bit_for_bit(two_layers, tmp_path):
  # The candidates have different masks. Interrupted and resumed training must equal whole training.
  e = two_layers
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  masks = np.ones((2, graph.num_channels), bool)
  masks[0, graph.groups[1].channels[0]] = False
  split = Split(e.x, e.y)
  recipe = dataclasses.replace(RECIPE, epochs=2)
  run = lambda masks, **others: train_candidates(
    graph, e.network, CLASSIFICATION, jnp.asarray(masks), split, recipe, KEY, **others
  )
  both = run(masks)
  with pytest.raises(Preempted):
    run(masks, checkpointer=checkpointer_in(tmp_path, 100, 4))
  resumed = run(masks, checkpointer=checkpointer_in(tmp_path, 100))
  for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(resumed), strict=True):
    np.testing.assert_array_equal(a, b)
