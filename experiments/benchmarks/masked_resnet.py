"""The work that is timed: masked CIFAR ResNets scored and trained on noise of CIFAR's size."""

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
from gatprune_jax.evaluation import (
  Batch,
  Recipe,
  TrainFunction,
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
  """A network with random weights, images, and masks of about half its channels."""

  graph: ChannelGraph
  eval_fn: Callable[[Any, jax.Array], jax.Array]
  train_fn: TrainFunction
  variables: Any
  x: jax.Array  # [n, 32, 32, 3]
  y: jax.Array  # [n], all 0
  calibration: jax.Array  # [n, 32, 32, 3]
  masks: jax.Array  # [C, N] bool

  @property
  def macs(self) -> float:
    """Multiply-adds of one image, nothing removed: what a masked network computes too."""
    return gp.macs(self.graph, np.ones(self.graph.num_channels))


def problem(num_masks: int, num_images: int, name: str = "resnet20") -> Problem:
  """The problem with so many masks, and so many images of each kind."""
  eval_fn, variables, x = network(name, 32, num_images, 10)
  graph = gp.trace(eval_fn, variables, x[:1])
  masks = np.random.default_rng(0).random((num_masks, graph.num_channels)) < 0.5
  return Problem(
    graph,
    eval_fn,
    models.train_function(models.model(name, 10)),
    variables,
    x,
    jnp.zeros(num_images, jnp.int32),
    jax.random.normal(jax.random.key(2), x.shape),
    jnp.asarray(masks),
  )


class Training(NamedTuple):
  """One gradient step of a network under a mask; unbatched."""

  step: Callable[[Any, Any], Any]  # ((state, mask), batch) -> state
  states: Any  # one for each mask of the problem, [C, ...]
  batch: Batch


def training(p: Problem, conv: Callable | None) -> Training:
  """Steps on all images of the problem.

  Args:
    p: the problem.
    conv: the convolution; None is XLA's.
  """
  optimizer = make_optimizer(RECIPE, 100)
  masked_fn = gp.masked(p.graph, p.train_fn, conv)

  def step(candidate, batch):
    state, mask = candidate
    return train_step(lambda v, x: masked_fn(v, mask, x), optimizer, RECIPE, state, batch)[0]

  stack = lambda leaf: jnp.repeat(leaf[None], len(p.masks), axis=0)
  init = functools.partial(init_train_state, optimizer)
  states = jax.vmap(init)(jax.tree.map(stack, p.variables))
  return Training(step, states, Batch(p.x, p.y, jnp.zeros((len(p.y), 1))))
