"""Scores of masks: how well a network performs with some channels removed, before training."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from gatprune_jax.channels import ChannelGraph, Compensation
from gatprune_jax.data import Split
from gatprune_jax.evaluation.adaptation import AdaptationBatches, adapt
from gatprune_jax.evaluation.batching import images_at_once, largest_activation
from gatprune_jax.evaluation.recalibration import Momentum, batch_statistics, with_statistics
from gatprune_jax.kernels.convolution import (
  candidate_convolution,
  network_convolution,
  scoring_convolution,
)
from gatprune_jax.networks import Network, Task, fast_network, masked_network
from gatprune_jax.runtime.maps import in_blocks


class Score(NamedTuple):
  """The task's score and loss of each example."""

  score: jax.Array  # [..., n] float32: for classification, 1 where the label was predicted, else 0
  loss: jax.Array  # [..., n] float32: for classification, -log p(label), nats


class Weights(NamedTuple):
  """The arrays that a mask is evaluated with, as one argument of a compiled function."""

  variables: Any  # variables of the dense network
  momentum: Momentum  # momentum of each running statistic of the network
  adaptation: AdaptationBatches  # batches of the gradient steps before scoring
  calibration: jax.Array  # [k, b, ...] batches of training inputs for the running statistics
  compensation: Compensation | None = None  # measured on the dense network; None: no compensation


def score_outputs(task: Task, outputs: Any, y: Any) -> Score:
  """Scores outputs against targets.

  Args:
    task: provides the score and the loss.
    outputs: a tree of arrays `[n, ...]`.
    y: targets, a tree of arrays `[n, ...]`.
  """
  return Score(task.score(outputs, y), task.loss(outputs, y))


def score_mask(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  weights: Weights,
  mask: jax.Array,
  x: jax.Array,
  y: Any,
  count: jax.Array | int | None = None,
) -> Score:
  """Scores one mask on weights of its own, with batch norm recalibrated for the mask.

  The weights are those of `own_weights`. The function scores a single mask; use `vmap` for several.
  Without compensation and adaptation steps all masks share their weights. `vmap` over the mask then
  folds the masks into the batch of every convolution, and operations that do not depend on a mask
  are computed once.

  Args:
    graph: the network's channels.
    network: the network's functions; the variables are taken from `weights`.
    task: provides the loss and the score.
    weights: the arrays that the mask is evaluated with.
    mask: `[N]`, 1 = keep.
    x: inputs `[n, ...]`.
    y: targets, tree of `[n, ...]`.
    count: number of first examples whose scores are wanted, see `in_blocks`; None: all.
  """
  own = own_weights(graph, network, task, weights, mask)
  statistics = mask_statistics(graph, network, own, mask)
  return score_with_statistics(graph, network, task, own, mask, statistics, x, y, count)


def own_weights(
  graph: ChannelGraph, network: Network, task: Task, weights: Weights, mask: jax.Array
) -> Weights:
  """Returns the weights with which one mask is scored: compensated, then adapted by gradient steps.

  Args:
    graph: the network's channels.
    network: the network's functions.
    task: provides the loss of the steps.
    weights: those of the dense network.
    mask: `[N]`, 1 = keep.
  """
  compensated = compensated_weights(weights, mask)
  learner = masked_network(graph, network, mask, candidate_convolution())
  variables = adapt(learner, task, compensated.variables, weights.adaptation)
  return compensated._replace(variables=variables)


def compensated_weights(weights: Weights, mask: jax.Array) -> Weights:
  """Returns the weights of the dense network, compensated for one mask; see `Compensation`."""
  if weights.compensation is None:
    return weights
  variables = weights.compensation(weights.variables, mask)
  return weights._replace(variables=variables, compensation=None)


def mask_statistics(
  graph: ChannelGraph, network: Network, weights: Weights, mask: jax.Array
) -> tuple[jax.Array, ...]:
  """Computes the running statistics of the network under a mask; see `batch_statistics`.

  Args:
    graph: the network's channels.
    network: the network's functions.
    weights: the variables, which are used as they are, the momenta and the calibration batches.
    mask: `[N]`, 1 = keep.
  """
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
  count: jax.Array | int | None = None,
) -> Score:
  """Scores one mask with running statistics from `mask_statistics`.

  Args:
    graph: the network's channels.
    network: the network's functions.
    task: provides the loss and the score.
    weights: the variables and the momenta.
    mask: `[N]`, 1 = keep.
    statistics: the running statistics, from `mask_statistics`.
    x: inputs `[n, ...]`.
    y: targets, tree of `[n, ...]`.
    count: number of first examples whose scores are wanted, see `in_blocks`; None: all.
  """
  variables = with_statistics(network, weights.momentum, weights.variables, statistics)
  return score_outputs(task, masked_outputs(graph, network, variables, mask, x, count), y)


def masked_outputs(
  graph: ChannelGraph,
  network: Network,
  variables: Any,
  mask: jax.Array,
  x: jax.Array,
  count: jax.Array | int | None = None,
) -> Any:
  """Computes the outputs of a network under a mask, in blocks of inputs; see `images_at_once`.

  Args:
    graph: the network's channels.
    network: the network's functions.
    variables: dense variables.
    mask: `[N]`, 1 = keep.
    x: inputs `[n, ...]`.
    count: number of first inputs whose outputs are wanted, see `in_blocks`; None: all.

  Returns:
    The outputs, a tree of `[n, ...]`.
  """
  under_mask = masked_network(graph, network, mask, scoring_convolution())
  each = largest_activation(network.eval_fn, variables, x) // len(x)
  size = images_at_once(each, jax.default_backend())
  return in_blocks(lambda rows: under_mask.eval_fn(variables, rows), x, size, count)


def candidate_scores(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  variables: Any,
  masks: jax.Array,
  x: jax.Array,
  y: Any,
) -> jax.Array:
  """Computes mean scores `[C]` of masked networks with their own weights, one after another.

  Args:
    graph: the channels of the networks.
    network: the functions of the networks.
    task: provides the score.
    variables: dense variables, stacked `[C, ...]`, with the running statistics from training.
    masks: `[C, N]`, 1 = keep.
    x: inputs `[n, ...]`.
    y: targets, tree of `[n, ...]`.
  """

  def one(own: tuple[Any, jax.Array]) -> jax.Array:
    variables, mask = own
    under_mask = masked_network(graph, network, mask, network_convolution())
    outputs = under_mask.eval_fn(variables, x)
    return task.score(outputs, y).mean()

  return jax.lax.map(one, (variables, masks))


def candidate_statistics(
  graph: ChannelGraph,
  network: Network,
  momentum: Momentum,
  variables: Any,
  masks: jax.Array,
  x: jax.Array,
) -> tuple[jax.Array, ...]:
  """Computes the running statistics of masked networks with their own weights, one after another.

  Args:
    graph: the channels of the networks.
    network: the functions of the networks.
    momentum: from `running_momentum`.
    variables: dense variables, stacked `[C, ...]`.
    masks: `[C, N]`, 1 = keep.
    x: batches of inputs `[k, b, ...]` from the training split.

  Returns:
    Values `[C, ...]`, in the order of `batch_statistics`.
  """

  def one(own: tuple[Any, jax.Array]) -> tuple[jax.Array, ...]:
    variables, mask = own
    under_mask = masked_network(graph, network, mask, network_convolution())
    return batch_statistics(under_mask, momentum, variables, x)

  return jax.lax.map(one, (variables, masks))


def mean_score(network: Network, task: Task, variables: Any, split: Split) -> float:
  """Computes the task's mean score of a network in eval mode on a split.

  Args:
    network: the network's functions.
    task: provides the score.
    variables: the network's variables.
    split: n examples.
  """
  eval_fn = fast_network(network).eval_fn
  pieces = (_total(eval_fn, task.score, variables, *piece) for piece in split.pieces())
  return float(sum(pieces)) / split.num


@functools.partial(jax.jit, static_argnums=(0, 1))
def _total(eval_fn: Callable, score: Callable, variables: Any, x: jax.Array, y: Any) -> jax.Array:
  return score(eval_fn(variables, x), y).sum()
