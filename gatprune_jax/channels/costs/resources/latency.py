"""The time that a forward pass of a masked network takes, from a table of measured times."""

import dataclasses
import functools
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.latency_table import LatencyTable, TimedShape
from gatprune_jax.channels.costs.resources.products import Products, products
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("axes", "knots", "seconds", "constant"),
  meta_fields=("block", "unit"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Interpolated:
  """The `Resource` constant + sum_l T_l(r(w_l1), ..., r(w_lD)), of w_lk kept elements of axis k.

  r rounds a width up to the next knot or multiple of the block size, and T_l is multilinear between
  knots. So a channel that fills a block costs nothing, `Constraints.top_up` adds it, and the masks
  of a search land on widths that the hardware computes without waste. T_l is 0 where an axis keeps
  nothing, since such a layer is not evaluated. The gradient is that of the line below r(w), as if r
  were the identity.

  Attributes:
    axes: counts the kept elements of D axes of each of L layers.
    knots: widths of which times are known, rising, from 0 on, `[L, D, G]`; entries behind the last
      knot of an axis are infinite.
    seconds: T at the knots, which falls along no axis, `[L, G^D]`, the last axis fastest.
    constant: seconds that no mask changes.
    block: number of elements that the hardware computes together.
    unit: name of the unit.
  """

  axes: Products
  knots: np.ndarray
  seconds: np.ndarray
  constant: np.ndarray
  block: int
  unit: str = "seconds"

  def cost(self, mask: Any) -> Any:
    """Implements `Resource.cost`."""
    widths = self.axes.factors(mask)
    times = self._times(widths, np.arange(len(widths)))
    if isinstance(times, jax.Array):
      return jnp.asarray(self.constant, times.dtype) + times.sum()
    return self._total(times)

  def gradient(self, mask: Any) -> Any:
    """Implements `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Implements `Resource.with_one_more`."""
    mask, axes = np.asarray(mask, bool), self.axes
    widths = axes.factors(mask)
    own = self._times(widths, np.arange(len(widths)))
    # A kind of which all channels are kept has none more. The result leaves it out, but its widths
    # must be on the grid.
    dense = np.where(np.isfinite(self.knots), self.knots, 0).max(2)
    more = np.minimum(widths[axes.term] + axes.times, dense[axes.term])
    times = np.repeat(own[:, None], axes.num_kinds, axis=1)
    times[axes.term, axes.kind] = self._times(more, axes.term)
    return np.where(mask, self._total(own), self._total(times)[axes.kind_of])

  def _total(self, times: np.ndarray) -> Any:
    """Returns the seconds of networks from those of their layers, `[L, ...]`.

    The order of the sum does not depend on the number of networks, so that a mask costs the same,
    to the last bit, alone and among others. NumPy's own sum does not promise that.
    """
    return self.constant + functools.reduce(operator.add, times)

  def _times(self, widths: Any, layer: np.ndarray) -> Any:
    """Returns the seconds of R layers, `[R]`.

    Args:
      widths: the widths of each, `[R, D]`.
      layer: which layer each of them is, int `[R]`.
    """
    xp = jnp if isinstance(widths, jax.Array) else np
    knots, seconds = (xp.asarray(of, widths.dtype)[layer] for of in (self.knots, self.seconds))
    num_knots = knots.shape[-1]
    if xp is jnp:
      widths = widths + jax.lax.stop_gradient(self._rounded(xp, knots, widths) - widths)
    else:
      widths = self._rounded(xp, knots, widths)
    cell = xp.maximum((knots < widths[..., None]).sum(2) - 1, 0)  # [R, D]
    low, high = (_at(xp, knots, place) for place in (cell, cell + 1))
    share = (widths - low) / (high - low)
    num_axes, terms = widths.shape[1], []
    for corner in itertools.product((0, 1), repeat=num_axes):
      index, weight = 0, 1.0
      for k, upper in enumerate(corner):
        index = index * num_knots + cell[:, k] + upper
        weight = weight * (share[:, k] if upper else 1 - share[:, k])
      terms.append(weight * _at(xp, seconds, index))
    return sum(terms)

  def _rounded(self, xp: Any, knots: Any, widths: Any) -> Any:
    """Returns the widths `[R, D]`, rounded up to the next knot or multiple of the block size."""
    next_knot = _at(xp, knots, (knots < widths[..., None]).sum(2))
    return xp.minimum(next_knot, self.block * xp.ceil(widths / self.block))


def _at(xp: Any, rows: Any, place: Any) -> Any:
  """Returns the entry of each row `[..., n]` at its place `[...]`."""
  return xp.take_along_axis(rows, place[..., None], axis=-1)[..., 0]


def make_latency(graph: ChannelGraph, deployment: Deployment) -> Interpolated:
  """Returns the time of a forward pass by the deployment's table.

  A width counts with the least time of any larger one, so that adding a channel never lowers the
  cost. Kernels are often faster at a larger width than at one that does not suit them; the channels
  up to that width then cost nothing, so that `Constraints.top_up` adds them.

  Raises:
    InputError: the deployment has no table, or one of another network.
  """
  table = deployment.latency_table
  if table is None:
    raise InputError(
      "a budget for latency needs a table of what layers cost: measure one with "
      "gatprune_jax.measure_latency, and give it as Deployment(latency_table=...)"
    )
  table.check_network(graph)
  return interpolated(graph, table)


def interpolated(graph: ChannelGraph, table: LatencyTable) -> Interpolated:
  """Returns the `Resource` of a table that is of the graph's network."""
  layers = [layer for layer in graph.layers if layer.cut_axes]
  axes = products(graph.num_channels, [(1.0, layer.cut_axes) for layer in layers])
  num_axes = axes.constant.shape[1]
  shapes = [_rising(shape, num_axes) for shape in table.shapes]
  num_knots = max(len(knots) for shape, _ in shapes for knots in shape)
  knots = np.full((len(layers), num_axes, num_knots), np.inf)
  seconds = np.zeros((len(layers), *[num_knots] * num_axes))
  for index, timed in enumerate(table.layers):
    grid, times = shapes[timed.shape]
    for k, axis in enumerate(grid):
      knots[index, k, : len(axis)] = axis
    filled = tuple(slice(size) for size in times.shape)
    seconds[(index, *filled)] = table.factor * timed.times * times
  return Interpolated(
    axes, knots, seconds.reshape(len(layers), -1), np.float64(table.constant), table.block
  )


def latency(graph: ChannelGraph, mask: Any, table: LatencyTable) -> Any:
  """Returns the seconds of a forward pass under a mask `[num_channels]`, 1 = keep.

  This is the time that a search with a budget for latency sees. It is interpolated between the
  times of the table; `LatencyTable` says what they were measured with.

  Args:
    graph: the network's channels.
    mask: `[num_channels]`, 1 = keep.
    table: what the network's layers cost.

  Returns:
    float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape, or the table is of another network.
  """
  return make_latency(graph, Deployment(table.batch, table)).cost(mask)


def _rising(shape: TimedShape, num_axes: int) -> tuple[list[np.ndarray], np.ndarray]:
  """Returns the knots of `num_axes` axes, each from 0 on, and the times there, which never fall."""
  times = np.asarray(shape.seconds)
  # A layer with fewer axes gets axes on which one element is always kept.
  grid = [np.array([0, *axis]) for axis in shape.widths]
  grid += [np.array([0, 1])] * (num_axes - len(grid))
  times = times.reshape(times.shape + (1,) * (num_axes - times.ndim))
  for axis in range(num_axes):
    times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
  return grid, np.pad(times, [(1, 0)] * num_axes)
