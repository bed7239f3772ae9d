"""Batch-norm statistics of a masked network, measured anew from training images.

Removing channels shifts the activations of all that follow; with the dense network's running
statistics, accuracy collapses and masks are ranked wrongly (Li et al. 2020, EagleEye,
arXiv 2007.02491). Statistics are means over batches (Wu and Johnson 2021, arXiv 2105.07576,
section 3): a batch's activations are few enough for the cache of a CPU's core.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.cores import over_rows

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

  names = jax.eval_shape(train_fn, variables, x)[1].keys()

  @jax.jit
  def slopes(variables, x):
    low, high = (_updated(train_fn, variables, names, x, old) for old in (0.0, step))
    return jax.tree.map(lambda a, b: jnp.mean(b - a) / step, low, high)

  return slopes(variables, x)


def recalibrate(train_fn: TrainFunction, momentum: Any, variables: Any, x: jax.Array) -> Any:
  """Replaces every running statistic by the mean over batches of exactly the batch's own.

  Args:
    train_fn: the network in train mode, masked or not.
    momentum: m, from `running_momentum`: after one batch a statistic that was zero is 1 - m times
      the batch's.
    variables: the network's variables.
    x: batches of images `[k, b, ...]`, of the training split.
  """
  from_zero = over_rows(lambda batch: _updated(train_fn, variables, momentum, batch, 0.0), x)
  mean = jax.tree.map(lambda new, m: new.mean(0) / (1.0 - m), from_zero, momentum)
  return {**variables, **mean}


def _updated(
  train_fn: TrainFunction, variables: Any, names: Iterable[str], x: jax.Array, old: float
) -> Any:
  """The collections of these names after one batch when all their values were `old` before it."""
  constant = {
    name: jax.tree.map(lambda a: jnp.full_like(a, old), variables[name]) for name in names
  }
  return train_fn({**variables, **constant}, x)[1]
