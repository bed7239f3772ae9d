"""The work that the benchmarks time: scoring and training of masked ResNets.

The images are random noise.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measuring import network
import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.channels import ChannelGraph
from gatprune_jax.networks import CLASSIFICATION, Network, masked_network
from gatprune_jax.training import (
  Batch,
  Recipe,
  align_candidates,
  aligned_network,
  init_train_state,
  make_optimizer,
  train_step,
)

RECIPE = Recipe(
  epochs=1, batch_size=64, learning_rate=0.05, warmup_epochs=0.0, momentum=0.9, weight_decay=5e-4,
  label_smoothing=0.0, shift=0, flip=False, crop_area=1.0, mixup=0.0, average=0.0, distillation=0.0,
  temperature=1.0,
)  # fmt: skip


class Problem(NamedTuple):
  """A network with random weights, random images, and masks that keep about half its channels."""

  dtype: str
  graph: ChannelGraph
  network: Network
  x: jax.Array  # [n, side, side, 3]
  y: jax.Array  # [n], all 0
  calibration: jax.Array  # [n, side, side, 3]
  masks: jax.Array  # [C, N] bool

  @property
  def macs(self) -> float:
    """Multiply-adds of one image in the dense network, which a masked network computes too."""
    return gp.macs(self.graph, np.ones(self.graph.num_channels))


def problem(
  num_masks: int, num_images: int, dtype: str, name: str = "resnet20", side: int = 32
) -> Problem:
  """Makes a problem of random masks and images.

  Args:
    num_masks: number of masks.
    num_images: number of images to score and train on, and of further ones for calibration.
    dtype: dtype in which the network computes.
    name: a network of `gatprune_jax.models.MODELS`.
    side: pixels of the images.
  """
  eval_fn, variables, x = network(name, side, num_images, 10, dtype)
  graph = gp.trace(eval_fn, variables, x[:1])
  masks = np.random.default_rng(0).random((num_masks, graph.num_channels)) < 0.5
  return Problem(
    dtype,
    graph,
    Network(eval_fn, models.train_function(models.model(name, 10), dtype), variables),
    x,
    jnp.zeros(num_images, jnp.int32),
    jax.random.normal(jax.random.key(2), x.shape),
    jnp.asarray(masks),
  )


class TrainingCase(NamedTuple):
  """One gradient step of each candidate on all images of a problem."""

  step: Callable[[Any, Batch], Any]  # (one candidate, batch) -> state
  candidates: Any  # (training states, masks or their indices) `[C, ...]`
  batch: Batch
  macs: float  # multiply-adds of one image, as a candidate computes them


def masked_training(p: Problem) -> TrainingCase:
  """Makes training in which each candidate computes the whole network, by XLA's convolution."""
  repeat = lambda leaf: jnp.repeat(leaf[None], len(p.masks), axis=0)
  stacked = jax.tree.map(repeat, p.network.variables)
  return _training(
    p, functools.partial(masked_network, p.graph, p.network), stacked, p.masks, p.macs
  )


def aligned_training(p: Problem) -> TrainingCase:
  """Makes training as in `train_candidates`, where aligned candidates compute fewer channels."""
  masks = np.asarray(p.masks)
  aligned = align_candidates(p.graph, p.network, masks, p.x)
  network_of = functools.partial(aligned_network, p.network, aligned)
  macs = gp.macs(p.graph, aligned.keep[0])
  return _training(p, network_of, aligned.cut(p.network.variables), np.arange(len(masks)), macs)


def _training(
  p: Problem, network_of: Callable, stacked: Any, which: Any, macs: float
) -> TrainingCase:
  optimizer = make_optimizer(RECIPE, 100)

  def step(candidate, batch):
    state, one = candidate
    return train_step(network_of(one), CLASSIFICATION, optimizer, RECIPE, state, batch)[0]

  states = jax.vmap(functools.partial(init_train_state, p.network, optimizer))(stacked)
  return TrainingCase(step, (states, which), Batch(p.x, p.y, ()), macs)
