"""Trains one copy of a network under each of many masks, all of them side by side."""

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import Aligned, ChannelGraph, align
from gatprune_jax.data import Split
from gatprune_jax.kernels.convolution import candidate_convolution, candidate_width
from gatprune_jax.networks import Network, Task, fast_network
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.runtime import mesh
from gatprune_jax.runtime.maps import over_rows, over_shares
from gatprune_jax.training.epochs import OnEpoch, Training
from gatprune_jax.training.placement import Placement
from gatprune_jax.training.recipe import Recipe
from gatprune_jax.training.step import train_step


def align_candidates(graph: ChannelGraph, network: Network, masks: np.ndarray, x: Any) -> Aligned:
  """Gives the networks of several masks one shape, which the backend trains fast; see `align`.

  Args:
    graph: the network's channels.
    network: the dense network, whose train function is aligned.
    masks: `[C, N]`, 1 = keep.
    x: a batch of inputs `[B, ...]`, or its `jax.ShapeDtypeStruct`.
  """
  conv = candidate_convolution()
  return align(
    graph, network.train_fn, masks, network.variables, x, conv=conv, width=candidate_width
  )


def aligned_network(network: Network, aligned: Aligned, index: Any) -> Network:
  """Returns a network whose train function is that of one aligned candidate.

  Args:
    network: the dense network, from which everything else is taken.
    aligned: from `align_candidates`.
    index: which mask, an integer or a scalar array.
  """
  return dataclasses.replace(network, train_fn=functools.partial(aligned.apply, index))


def train_candidates(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  masks: jax.Array,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Network | None = None,
  checkpointer: Checkpointer | None = None,
  starts: Iterable[Any] | None = None,
) -> Any:
  """Trains one copy of a network under each mask, side by side, on the same batches.

  The result equals that of training each `masked_network` alone with the same key. The candidates
  are aligned (see `align`): each one computes about as many channels as the widest one keeps. Every
  device trains an equal share of the candidates.

  Args:
    graph: the network's channels.
    network: the dense network.
    task: gives the loss, and the score that is logged.
    masks: `[C, N]`, 1 = keep.
    split: training examples.
    recipe: how the candidates are trained.
    key: PRNG key of data order and augmentation, the same for all candidates.
    on_epoch: as in `train`; loss and score are means over the candidates too, and the variables
      are stacked `[C, ...]`.
    teacher: the network whose outputs are imitated where the recipe distils; it is not trained.
    checkpointer: as in `train`.
    starts: dense variables from which each of the C candidates starts; None starts all of them from
      the network's variables.

  Returns:
    The dense variables of every candidate, stacked `[C, ...]`, on the host. Entries that a
    candidate did not compute, because its mask removes them, have the network's values.

  Raises:
    InputError, Diverged, Preempted: as `train`.
  """
  dtype = jnp.asarray(split.x[:1]).dtype
  inputs = jax.ShapeDtypeStruct((recipe.batch_size, *split.x.shape[1:]), dtype)
  aligned = align_candidates(graph, network, np.asarray(masks), inputs)
  teacher = teacher and fast_network(teacher)

  def step(optimizer):
    def one(state, index, batch):
      candidate = aligned_network(network, aligned, index)
      return train_step(candidate, task, optimizer, recipe, state, batch)

    def side_by_side(own, batch):
      return over_rows(lambda both: one(*both, batch), own)

    indices = mesh.padded_rows(len(masks))
    shared = over_shares(side_by_side, len(masks))
    return lambda state, batch: shared((state, indices), batch)

  dense = lambda stacked: aligned.uncut(stacked, network.variables)
  on_dense = lambda epoch, metrics, stacked: on_epoch(epoch, metrics, dense(stacked))
  training = Training(network, task, split, recipe, key, on_dense, teacher, Placement(len(masks)))
  stacked = aligned.cut(network.variables) if starts is None else aligned.cut_each(starts)
  return dense(training.run(step, jax.vmap, stacked, checkpointer or NullCheckpointer()))
