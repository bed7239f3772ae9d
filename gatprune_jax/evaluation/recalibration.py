"""Batch-norm statistics of a masked network, measured anew from training images.

Removing channels shifts the activations of all that follow; with the dense network's running
statistics, accuracy collapses and masks are ranked wrongly (Li et al. 2020, EagleEye,
arXiv 2007.02491).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (variables, x) -> (logits, {collection: new values}); the statistics are those of the batch x.
TrainFunction = Callable[[Any, jax.Array], tuple[jax.Array, dict[str, Any]]]


def running_momentum(train_fn: TrainFunction, variables: Any, x: jax.Array) -> Any:
  """Measures m in `new = m old + (1 - m) batch` for every running statistic.

  The update is affine in the old value, so two evaluations give its slope, whatever the layer
  calls its momentum.

  Args:
    train_fn: the network in train mode.
    variables: its variables, `{"params": ..., collection: ...}`.
    x: any images `[B, ...]`.

  Returns:
    One scalar per leaf, in the tree of the collections that train_fn updates.
  """
  step = 1024.0  # a power of two: exact in the sum, and large against rounding of the statistics

  @jax.jit
  def slopes(variables, x):
    low, high = (_updated(train_fn, variables, x, old) for old in (0.0, step))
    return jax.tree.map(lambda a, b: jnp.mean(b - a) / step, low, high)

  return slopes(variables, x)


def recalibrate(train_fn: TrainFunction, momentum: Any, variables: Any, x: jax.Array) -> Any:
  """Replaces the running statistics by exactly those of the batch x.

  Args:
    train_fn: the network in train mode, masked or not.
    momentum: from `running_momentum`.
    variables: the network's variables.
    x: images `[B, ...]`, of the training split.
  """
  from_zero = _updated(train_fn, variables, x, 0.0)
  return {**variables, **jax.tree.map(lambda new, m: new / (1.0 - m), from_zero, momentum)}


def _updated(train_fn: TrainFunction, variables: Any, x: jax.Array, old: float) -> Any:
  """The statistics after one batch when all of them were `old` before it."""
  constant = {
    name: jax.tree.map(lambda a: jnp.full_like(a, old), tree)
    for name, tree in variables.items()
    if name != "params"
  }
  return train_fn({**variables, **constant}, x)[1]
