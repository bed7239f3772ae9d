"""Scores of masks: how well a network does with some of its channels removed, before training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gatprune_jax.channels import ChannelGraph, masked
from gatprune_jax.evaluation.adaptation import Lesson, adapt
from gatprune_jax.evaluation.batching import images_at_once, in_blocks, largest_activation
from gatprune_jax.evaluation.convolution import candidate_convolution, scoring_convolution
from gatprune_jax.evaluation.recalibration import TrainFunction, recalibrate


class Score(NamedTuple):
  """Per image, whether the label was predicted, and its log-likelihood."""

  correct: jax.Array  # [..., n] float32, 0 or 1
  log_likelihood: jax.Array  # [..., n] float32, nats, <= 0


def score_logits(logits: jax.Array, y: jax.Array) -> Score:
  """Scores logits `[n, classes]` against labels `[n]`; what is not finite predicts nothing."""
  log_p = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(log_p, y[:, None], axis=-1)[:, 0]
  correct = (logits.argmax(-1) == y) & jnp.isfinite(logits).all(-1)
  return Score(correct.astype(jnp.float32), chosen)


def score_mask(
  graph: ChannelGraph,
  eval_fn: Callable[[Any, jax.Array], jax.Array],
  train_fn: TrainFunction,
  momentum: Any,
  variables: Any,
  mask: jax.Array,
  calibration: jax.Array,
  x: jax.Array,
  y: jax.Array,
  lesson: Lesson | None = None,
) -> Score:
  """Scores one mask, batch norm recalibrated for it.

  Unbatched. Without a lesson the masks share their weights: `vmap` over the mask then folds the
  candidates into the batch of every convolution, and what no mask touches is computed once.

  Args:
    graph: the network's channels.
    eval_fn: `(variables, x) -> logits`.
    train_fn: `(variables, x) -> (logits, updated collections)`.
    momentum: of the running statistics, from `running_momentum`.
    variables: the weights.
    mask: `[N]`, 1 = keep.
    calibration: batches of images `[k, b, ...]` of the training split, for the statistics.
    x: images `[n, ...]`.
    y: labels `[n]`.
    lesson: gradient steps to take first; None takes none.
  """
  if lesson is not None:
    learner = masked(graph, train_fn, candidate_convolution())
    variables = adapt(lambda v, batch: learner(v, mask, batch), variables, lesson)
  recalibrated = recalibrate_mask(graph, train_fn, momentum, variables, mask, calibration)
  return score_logits(masked_logits(graph, eval_fn, recalibrated, mask, x), y)


def masked_logits(
  graph: ChannelGraph,
  eval_fn: Callable[[Any, jax.Array], jax.Array],
  variables: Any,
  mask: jax.Array,
  x: jax.Array,
) -> jax.Array:
  """Logits `[n, classes]` of a network under a mask, in blocks of images; see `images_at_once`."""
  masked_eval = masked(graph, eval_fn, scoring_convolution())
  each = largest_activation(eval_fn, variables, x) // len(x)
  size = images_at_once(each, jax.default_backend())
  return in_blocks(lambda rows: masked_eval(variables, mask, rows), x, size)


def recalibrate_mask(
  graph: ChannelGraph,
  train_fn: TrainFunction,
  momentum: Any,
  variables: Any,
  mask: jax.Array,
  calibration: jax.Array,
) -> Any:
  """The variables with the running statistics that they have under a mask; see `recalibrate`."""
  masked_train = masked(graph, train_fn, scoring_convolution())
  return recalibrate(
    lambda v, batch: masked_train(v, mask, batch), momentum, variables, calibration
  )


def candidate_accuracies(
  graph: ChannelGraph,
  eval_fn: Callable[[Any, jax.Array], jax.Array],
  variables: Any,
  masks: jax.Array,
  x: jax.Array,
  y: jax.Array,
) -> jax.Array:
  """Accuracy of masked networks with weights of their own, one after the other, `[C]`.

  Args:
    graph: the networks' channels.
    eval_fn: `(variables, x) -> logits`.
    variables: stacked weights `[C, ...]`, with the statistics they were trained with.
    masks: `[C, N]`, 1 = keep.
    x: images `[n, ...]`.
    y: labels `[n]`.
  """
  masked_eval = masked(graph, eval_fn)
  one = lambda vm: score_logits(masked_eval(vm[0], vm[1], x), y).correct.mean()
  return jax.lax.map(one, (variables, masks))
