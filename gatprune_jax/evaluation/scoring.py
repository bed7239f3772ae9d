"""Scores of masks: how well a network does with some of its channels removed, before training."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from gatprune_jax.channels import ChannelGraph
from gatprune_jax.data import Split
from gatprune_jax.evaluation.adaptation import AdaptationBatches, adapt
from gatprune_jax.evaluation.batching import images_at_once, largest_activation
from gatprune_jax.evaluation.recalibration import Momentum, batch_statistics, with_statistics
from gatprune_jax.kernels.convolution.choice import candidate_convolution, scoring_convolution
from gatprune_jax.networks import Network, Task, masked_network
from gatprune_jax.runtime.maps import in_blocks


class Score(NamedTuple):
  """Of each example, the task's score and its loss."""

  score: jax.Array  # [..., n] float32: for classification, 1 where the label was predicted, else 0
  loss: jax.Array  # [..., n] float32: for classification, -log p(label), nats


class Weights(NamedTuple):
  """What a mask is evaluated with, arrays only: an argument under jit."""

  variables: Any  # of the dense network
  momentum: Momentum  # of its running statistics
  adaptation: AdaptationBatches  # gradient steps before scoring
  calibration: jax.Array  # [k, b, ...] batches of training inputs, for the statistics


def score_outputs(task: Task, outputs: Any, y: Any) -> Score:
  """Scores outputs `[n, ...]` against targets `[n, ...]`."""
  return Score(task.score(outputs, y), task.loss(outputs, y))


def score_mask(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  weights: Weights,
  mask: jax.Array,
  x: jax.Array,
  y: Any,
) -> Score:
  """Scores one mask, after the adaptation steps, batch norm recalibrated for it.

  Unbatched. Without steps the masks share their weights: `vmap` over the mask then folds the
  candidates into the batch of every convolution, and what no mask touches is computed once.

  Args:
    graph: the network's channels.
    network: its functions; the variables are those of the weights.
    task: loss and score.
    weights: what the mask is evaluated with.
    mask: `[N]`, 1 = keep.
    x: inputs `[n, ...]`.
    y: targets, tree of `[n, ...]`.
  """
  learner = masked_network(graph, network, mask, candidate_convolution())
  learned = weights._replace(variables=adapt(learner, task, weights.variables, weights.adaptation))
  statistics = mask_statistics(graph, network, learned, mask)
  return score_with_statistics(graph, network, task, learned, mask, statistics, x, y)


def mask_statistics(
  graph: ChannelGraph, network: Network, weights: Weights, mask: jax.Array
) -> tuple[jax.Array, ...]:
  """The running statistics that the network has under a mask; see `batch_statistics`."""
  under_mask = masked_network(graph, network, mask, scoring_convolution())
  return batch_statistics(under_mask, weights.momentum, weights.variables, weights.calibration)


def score_with_statistics(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  weights: Weights,
  mask: jax.Array,
  statistics: tuple[jax.Array, ...],
  x: jax.Array,
  y: Any,
) -> Score:
  """Scores one mask with statistics from `mask_statistics`."""
  variables = with_statistics(network, weights.momentum, weights.variables, statistics)
  return score_outputs(task, masked_outputs(graph, network, variables, mask, x), y)


def masked_outputs(
  graph: ChannelGraph, network: Network, variables: Any, mask: jax.Array, x: jax.Array
) -> Any:
  """Outputs `[n, ...]` of a network under a mask, in blocks of inputs; see `images_at_once`."""
  under_mask = masked_network(graph, network, mask, scoring_convolution())
  each = largest_activation(network.eval_fn, variables, x) // len(x)
  size = images_at_once(each, jax.default_backend())
  return in_blocks(lambda rows: under_mask.eval_fn(variables, rows), x, size)


def candidate_scores(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  variables: Any,
  masks: jax.Array,
  x: jax.Array,
  y: Any,
) -> jax.Array:
  """Mean scores of masked networks with weights of their own, one after the other, `[C]`.

  Args:
    graph: the networks' channels.
    network: their functions.
    task: its score.
    variables: stacked `[C, ...]`, with the statistics that they were trained with.
    masks: `[C, N]`, 1 = keep.
    x: inputs `[n, ...]`.
    y: targets, tree of `[n, ...]`.
  """

  def one(own: tuple[Any, jax.Array]) -> jax.Array:
    variables, mask = own
    outputs = masked_network(graph, network, mask).eval_fn(variables, x)
    return task.score(outputs, y).mean()

  return jax.lax.map(one, (variables, masks))


def mean_score(network: Network, task: Task, variables: Any, split: Split) -> float:
  """The task's mean score of a network in eval mode on a split."""
  pieces = (_total(network.eval_fn, task.score, variables, *piece) for piece in split.pieces())
  return float(sum(pieces)) / split.num


@functools.partial(jax.jit, static_argnums=(0, 1))
def _total(eval_fn: Callable, score: Callable, variables: Any, x: jax.Array, y: Any) -> jax.Array:
  return score(eval_fn(variables, x), y).sum()
