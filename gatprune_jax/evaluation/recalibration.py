"""Batch-norm statistics of a masked network, measured anew from training images.

Removing channels shifts the activations of all that follow; with the dense network's running
statistics, accuracy collapses and masks are ranked wrongly (Li et al. 2020, EagleEye,
arXiv 2007.02491). Statistics are means over batches (Wu and Johnson 2021, arXiv 2105.07576,
section 3): a batch's activations are few enough for the cache of a CPU's core.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.cores import over_rows

# (variables, x) -> (logits, {collection: new values}); the statistics are those of the batch x.
TrainFunction = Callable[[Any, jax.Array], tuple[jax.Array, dict[str, Any]]]


def running_momentum(train_fn: TrainFunction, variables: Any, x: jax.Array) -> Any:
  """Measures m in `new = m old + (1 - m) batch` for every running statistic.

  The update is affine in the old value, so two evaluations give its slope, whatever the layer
  calls its momentum. Where that is 1, the statistic is no mean of batches: a frozen batch norm
  hands it on, or it counts. A frozen norm computes with its own, so that the probing values would
  disturb all that follows: the others are measured once more, with these as they are.

  Args:
    train_fn: the network in train mode.
    variables: its variables, `{"params": ..., collection: ...}`.
    x: any images `[B, ...]`.

  Returns:
    One scalar per leaf, in the tree of the collections that train_fn updates; None where the slope
    is 1.
  """
  step = 1024.0  # a power of two: exact in the sum, and large against rounding of the statistics

  def measure(momentum):
    @jax.jit
    def slopes(variables, x):
      low, high = (_updated(train_fn, variables, momentum, x, old) for old in (0.0, step))
      slope = jax.tree.map(lambda a, b: jnp.mean(b - a) / step, low, high)
      return slope, jax.tree.map(lambda a, b: (b - a == step).all(), low, high)

    return jax.tree.map(lambda m, stays: None if stays else m, *slopes(variables, x))

  momentum = measure(jax.eval_shape(train_fn, variables, x)[1])
  without = _by_statistic(lambda m: m is None, momentum)
  return measure(momentum) if any(jax.tree.leaves(without)) else momentum


def recalibrate(train_fn: TrainFunction, momentum: Any, variables: Any, x: jax.Array) -> Any:
  """Replaces every running statistic by the mean over batches of exactly the batch's own.

  Args:
    train_fn: the network in train mode, masked or not.
    momentum: m, from `running_momentum`: after one batch a statistic that was zero is 1 - m times
      the batch's. Where it is None, the value stays.
    variables: the network's variables.
    x: batches of images `[k, b, ...]`, of the training split.
  """
  from_zero = over_rows(lambda batch: _updated(train_fn, variables, momentum, batch, 0.0), x)
  mean = jax.tree.map(lambda new, m: new.mean(0) / (1.0 - m), from_zero, momentum)
  own = {name: variables[name] for name in momentum}
  choose = lambda m, old, new: old if m is None else new
  return {**variables, **_by_statistic(choose, momentum, own, mean)}


def _updated(
  train_fn: TrainFunction, variables: Any, momentum: Any, x: jax.Array, old: float
) -> Any:
  """The statistics with a momentum after one batch when all of them were `old` before it."""
  own = {name: variables[name] for name in momentum}
  constant = _by_statistic(
    lambda m, leaf: leaf if m is None else jnp.full_like(leaf, old), momentum, own
  )
  _, updated = train_fn({**variables, **constant}, x)
  return _by_statistic(lambda m, new: None if m is None else new, momentum, updated)


def _by_statistic(fn: Callable[..., Any], momentum: Any, *trees: Any) -> Any:
  """`fn(m, ...)` of every statistic, of those whose m is None too."""
  return jax.tree.map(fn, momentum, *trees, is_leaf=lambda m: m is None)
