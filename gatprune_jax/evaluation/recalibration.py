"""Batch-norm statistics of a masked network, measured again on training images.

Removing channels shifts the activations of all layers that follow. With the running statistics of
the dense network, accuracy collapses and masks are ranked wrongly (Li et al. 2020, EagleEye,
arXiv 2007.02491). The statistics are means over batches (Wu and Johnson 2021, arXiv 2105.07576,
section 3), because the activations of one batch fit into the cache of a CPU core.
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

  The update is affine in the old value, so that two evaluations give the slope m, whatever name the
  layer uses for its momentum. A leaf whose slope is 1 is not a mean over batches: a frozen batch
  norm leaves the leaf unchanged, training does not update the leaf, or the leaf is a counter. A
  frozen batch norm normalises with its statistics, so the values that the measurement sets there
  change the inputs of all layers that follow. Therefore the other leaves are measured again, while
  leaves of slope 1 keep their original values.

  Args:
    network: the network with its variables.
    x: any batch of inputs `[B, ...]`.

  Returns:
    m for every leaf of the state, a scalar; None for a leaf that is not a running statistic.
  """
  # A power of two is exact in sums, and 1024 is large compared with the rounding of statistics.
  step = 1024.0

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
  """Replaces every running statistic by the mean of the statistics of single batches.

  Args:
    network: the network, masked or not.
    momentum: m, from `running_momentum`. After one batch, a running statistic that was zero is
      1 - m times the statistic of the batch. Where m is None, the leaf is left unchanged.
    variables: the network's variables.
    x: batches of inputs `[k, b, ...]` from the training split.
  """
  statistics = batch_statistics(network, momentum, variables, x)
  return with_statistics(network, momentum, variables, statistics)


def batch_statistics(
  network: Network, momentum: Momentum, variables: Any, x: Any
) -> tuple[jax.Array, ...]:
  """Computes the values by which `recalibrate` replaces the running statistics.

  Args:
    network: the network, masked or not.
    momentum: m, from `running_momentum`.
    variables: the network's variables.
    x: batches of inputs `[k, b, ...]` from the training split.

  Returns:
    The values in the order of the state's leaves, without the leaves whose m is None.
  """
  is_statistic = tuple(m is not None for m in momentum)
  if not any(is_statistic):
    return ()
  from_zero = over_rows(lambda batch: _updated(network, variables, is_statistic, batch, 0.0), x)
  known = [m for m in momentum if m is not None]
  return tuple(new.mean(0) / (1.0 - m) for new, m in zip(from_zero, known, strict=True))


def with_statistics(
  network: Network, momentum: Momentum, variables: Any, statistics: tuple[jax.Array, ...]
) -> Any:
  """Returns the variables with the running statistics replaced.

  Args:
    network: the network, masked or not.
    momentum: m, from `running_momentum`.
    variables: the network's variables.
    statistics: the new values, from `batch_statistics`.
  """
  params, state = network.split(variables)
  is_statistic = tuple(m is not None for m in momentum)
  return network.merge(params, _replaced(state, is_statistic, statistics))


def _updated(
  network: Network, variables: Any, is_statistic: tuple[bool, ...], x: Any, old: float
) -> list[jax.Array]:
  """Returns the running statistics after one batch if all of them were `old` before the batch."""
  params, state = network.split(variables)
  chosen = [leaf for leaf, wanted in zip(state, is_statistic, strict=True) if wanted]
  constant = _replaced(state, is_statistic, [jnp.full_like(leaf, old) for leaf in chosen])
  _, after = network.forward_train(network.merge(params, constant), x)
  return [leaf for leaf, wanted in zip(after, is_statistic, strict=True) if wanted]


def _replaced(
  state: tuple[Any, ...], chosen: tuple[bool, ...], values: Sequence[Any]
) -> tuple[Any, ...]:
  """Returns the leaves of a state, with the chosen leaves replaced by `values`."""
  values = iter(values)
  return tuple(next(values) if here else leaf for leaf, here in zip(state, chosen, strict=True))
