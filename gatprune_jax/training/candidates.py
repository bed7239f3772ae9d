"""Trains many masked candidates side by side."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import Aligned, ChannelGraph, align
from gatprune_jax.data import Split
from gatprune_jax.kernels.convolution import candidate_convolution, candidate_width
from gatprune_jax.networks import Network, Task
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.runtime import mesh
from gatprune_jax.runtime.maps import over_rows, over_shares
from gatprune_jax.training.epochs import OnEpoch, Teacher, Training
from gatprune_jax.training.placement import Placement
from gatprune_jax.training.recipe import Recipe
from gatprune_jax.training.step import train_step


def align_candidates(graph: ChannelGraph, network: Network, masks: np.ndarray, x: Any) -> Aligned:
  """Networks of several masks at one shape, in the form that the backend trains fast; see `align`.

  Args:
    graph: the network's channels.
    network: the dense one; its train function is aligned.
    masks: `[C, N]`, 1 = keep.
    x: a batch of inputs, or its `jax.ShapeDtypeStruct`.
  """
  conv = candidate_convolution()
  return align(
    graph, network.train_fn, masks, network.variables, x, conv=conv, width=candidate_width
  )


def aligned_network(network: Network, aligned: Aligned, index: Any) -> Network:
  """One of the aligned networks, in train mode, as a network."""
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
  teacher: Teacher | None = None,
  checkpointer: Checkpointer | None = None,
) -> Any:
  """Trains one copy of a network under each mask, side by side, on the same batches.

  Equal to training each alone as a `masked_network` with the same key. The networks are aligned
  (see `align`): each computes about as many channels as the widest keeps. Every device trains its
  share of them.

  Args:
    graph: the network's channels.
    network: the dense one; every candidate starts from its variables.
    task: its loss, and the score that is told.
    masks: `[C, N]`, 1 = keep.
    split: training examples.
    recipe: how.
    key: PRNG key of data order and augmentation, shared.
    on_epoch: as in `train`, with means over the candidates.
    teacher: what to imitate where the recipe distils.
    checkpointer: as in `train`.

  Returns:
    The dense variables of each `[C, ...]`, on the host; what a network did not compute, because its
    mask removes it, is as it was at the start.

  Raises:
    InputError, Diverged, Preempted: as `train`.
  """
  dtype = jnp.asarray(split.x[:1]).dtype
  inputs = jax.ShapeDtypeStruct((recipe.batch_size, *split.x.shape[1:]), dtype)
  aligned = align_candidates(graph, network, np.asarray(masks), inputs)

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
  stacked = aligned.cut(network.variables)
  return dense(training.run(step, jax.vmap, stacked, checkpointer or NullCheckpointer()))
