"""Batch-norm statistics of a masked network, measured anew from training images.

Removing channels shifts the activations of all that follow; with the dense network's running
statistics, accuracy collapses and masks are ranked wrongly (Li et al. 2020, EagleEye,
arXiv 2007.02491). Statistics are means over batches (Wu and Johnson 2021, arXiv 2105.07576,
section 3): a batch's activations are few enough for the cache of a CPU's core.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.networks import Network
from gatprune_jax.runtime.maps import over_rows

# A scalar for every running statistic, None for every other leaf of a network's state.
Momentum = tuple[jax.Array | None, ...]


def running_momentum(network: Network, x: Any) -> Momentum:
  """Measures m in `new = m old + (1 - m) batch` for every running statistic of the state.

  The update is affine in the old value, so two evaluations give its slope, whatever the layer
  calls its momentum. Where that is 1, the leaf is no mean of batches: a frozen batch norm hands it
  on, training does not update it, or it counts. A frozen norm computes with its own, so that the
  probing values would disturb all that follows: the others are measured once more, with these as
  they are.

  Args:
    network: with its variables.
    x: any batch of inputs `[B, ...]`.
  """
  step = 1024.0  # a power of two: exact in the sum, and large against rounding of the statistics

  def measure(is_statistic: tuple[bool, ...]) -> Momentum:
    @jax.jit
    def slopes(variables, x):
      low, high = (_updated(network, variables, is_statistic, x, old) for old in (0.0, step))
      slope = [jnp.mean(b - a) / step for a, b in zip(low, high, strict=True)]
      return slope, [(b - a == step).all() for a, b in zip(low, high, strict=True)]

    if not any(is_statistic):
      return (None,) * len(is_statistic)
    found = [None if stays else m for m, stays in zip(*slopes(network.variables, x), strict=True)]
    return _replaced((None,) * len(is_statistic), is_statistic, found)

  state = network.split(network.variables)[1]
  probed = tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in state)
  momentum = measure(probed)
  found = tuple(m is not None for m in momentum)
  return momentum if found == probed else measure(found)


def recalibrate(network: Network, momentum: Momentum, variables: Any, x: Any) -> Any:
  """Replaces every running statistic by the mean over batches of exactly the batch's own.

  Args:
    network: masked or not.
    momentum: m, from `running_momentum`: after one batch a statistic that was zero is 1 - m times
      the batch's. Where it is None, the value stays.
    variables: the network's variables.
    x: batches of inputs `[k, b, ...]`, of the training split.
  """
  statistics = batch_statistics(network, momentum, variables, x)
  return with_statistics(network, momentum, variables, statistics)


def batch_statistics(
  network: Network, momentum: Momentum, variables: Any, x: Any
) -> tuple[jax.Array, ...]:
  """What `recalibrate` replaces the running statistics by, in the order of the state's leaves."""
  is_statistic = tuple(m is not None for m in momentum)
  if not any(is_statistic):
    return ()
  from_zero = over_rows(lambda batch: _updated(network, variables, is_statistic, batch, 0.0), x)
  known = [m for m in momentum if m is not None]
  return tuple(new.mean(0) / (1.0 - m) for new, m in zip(from_zero, known, strict=True))


def with_statistics(
  network: Network, momentum: Momentum, variables: Any, statistics: tuple[jax.Array, ...]
) -> Any:
  """The variables with the running statistics that `batch_statistics` gave."""
  params, state = network.split(variables)
  is_statistic = tuple(m is not None for m in momentum)
  return network.merge(params, _replaced(state, is_statistic, statistics))


def _updated(
  network: Network, variables: Any, is_statistic: tuple[bool, ...], x: Any, old: float
) -> list[jax.Array]:
  """The statistics after one batch when all of them were `old` before it."""
  params, state = network.split(variables)
  chosen = [leaf for leaf, wanted in zip(state, is_statistic, strict=True) if wanted]
  constant = _replaced(state, is_statistic, [jnp.full_like(leaf, old) for leaf in chosen])
  _, after = network.forward_train(network.merge(params, constant), x)
  return [leaf for leaf, wanted in zip(after, is_statistic, strict=True) if wanted]


def _replaced(
  state: tuple[Any, ...], chosen: tuple[bool, ...], values: Sequence[Any]
) -> tuple[Any, ...]:
  """The leaves of a state, with other values in the chosen places."""
  values = iter(values)
  return tuple(next(values) if here else leaf for leaf, here in zip(state, chosen, strict=True))
