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
from gatprune_jax.channels.costs.resources.products import products
from gatprune_jax.channels.graph import ChannelGraph, check_mask_shape
from gatprune_jax.errors import InputError


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("members", "landings", "elements", "fixed", "knots", "seconds", "constant"),
  meta_fields=("unit",),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Interpolated:
  """The `Resource` constant + sum_l T_l(w_l1, ..., w_lD), w_lk = fixed_lk + sum_g e_lkg r_g(n_g).

  n_g channels of group g are kept, and r_g rounds them up to the next landing, a number of channels
  that the hardware computes without waste. So a channel before a landing costs nothing,
  `Constraints.top_up` and `add_free` add it, and the masks of a search end at landings. T_l is
  multilinear between knots. It is 0 where an axis keeps nothing, since such a layer is not
  evaluated. The gradient is that of the lines below the widths, as if r were the identity.

  Attributes:
    members: 1 for the channels of each of G groups, float32 `[G, N]`.
    landings: numbers of channels, rising, from 0 to the whole group, `[G, A]`; entries behind the
      last one are infinite.
    elements: e, how many elements of D axes of each of L layers a channel has, `[L, D, G]`.
    fixed: number of elements of each axis that are never removed, `[L, D]`.
    knots: widths of which times are known, rising, from 0 on, `[L, D, K]`; entries behind the last
      knot of an axis are infinite.
    seconds: T at the knots, which falls along no axis, `[L, K^D]`, the last axis fastest.
    constant: seconds that no mask changes.
    unit: name of the unit.
  """

  members: np.ndarray
  landings: np.ndarray
  elements: np.ndarray
  fixed: np.ndarray
  knots: np.ndarray
  seconds: np.ndarray
  constant: np.ndarray
  unit: str = "seconds"

  def cost(self, mask: Any) -> Any:
    """Implements `Resource.cost`."""
    check_mask_shape(mask, self.members.shape[1])
    if isinstance(mask, jax.core.Tracer):
      kept = jnp.asarray(self.members) @ mask.astype(jnp.float32)
      landed = kept + jax.lax.stop_gradient(self._landed(jnp, kept) - kept)
      widths = jnp.asarray(self.fixed, kept.dtype) + jnp.asarray(self.elements, kept.dtype) @ landed
    else:
      kept = self.members.astype(np.float64) @ np.asarray(mask, np.float64)
      widths = self.fixed + self.elements @ self._landed(np, kept)
    return self._total(widths[..., None])[0]

  def gradient(self, mask: Any) -> Any:
    """Implements `Resource.gradient`."""
    return jax.jit(jax.grad(self.cost))(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Implements `Resource.with_one_more`."""
    check_mask_shape(mask, self.members.shape[1])
    kept = self.members.astype(np.float64) @ np.asarray(mask, np.float64)
    landed = self._landed(np, kept)
    # A whole group has no channel that could be added; the result leaves it out.
    more = self._landed(np, np.minimum(kept + 1, self.members.sum(1))) - landed
    widths = (self.fixed + self.elements @ landed)[..., None]
    with_more = self._total(widths + self.elements * more)  # [G]
    return np.where(mask, self._total(widths), with_more[self.members.argmax(0)])

  def _landed(self, xp: Any, kept: Any) -> Any:
    """Returns numbers of kept channels `[G]`, rounded up to the next landings."""
    landings = xp.asarray(self.landings, kept.dtype)
    index = (landings < kept[:, None]).sum(1, keepdims=True)
    return xp.take_along_axis(landings, index, axis=1)[:, 0]

  def _total(self, widths: Any) -> Any:
    """Returns the seconds of M networks from their widths `[L, D, M]`, `[M]`."""
    xp = jnp if isinstance(widths, jax.Array) else np
    knots, seconds = (xp.asarray(of, widths.dtype) for of in (self.knots, self.seconds))
    num_knots = knots.shape[-1]
    cell = xp.maximum((knots[..., None] < widths[:, :, None]).sum(2) - 1, 0)  # [L, D, M]
    low = xp.take_along_axis(knots, cell, axis=2)
    high = xp.take_along_axis(knots, cell + 1, axis=2)
    share = (widths - low) / (high - low)
    terms = []
    for corner in itertools.product((0, 1), repeat=widths.shape[1]):
      index, weight = 0, 1.0
      for k, upper in enumerate(corner):
        index = index * num_knots + cell[:, k] + upper
        weight = weight * (share[:, k] if upper else 1 - share[:, k])
      terms.append(weight * xp.take_along_axis(seconds, index, axis=1))
    layers = sum(terms)  # [L, M]
    if xp is jnp:
      return jnp.asarray(self.constant, layers.dtype) + layers.sum(0)
    # The order of this sum does not depend on M, so that a mask costs the same, to the last bit,
    # alone and among others. NumPy's own sum does not promise that.
    return self.constant + functools.reduce(operator.add, layers)


def make_latency(graph: ChannelGraph, deployment: Deployment) -> Interpolated:
  """Returns the `Resource` that reads the time of a forward pass off the deployment's table.

  A width counts with the least time of any larger one, so that adding a channel never lowers the
  cost. Kernels are often faster at a larger width than at one that does not suit them; the channels
  up to that width then cost nothing, so that `Constraints.top_up` and `add_free` add them.

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
  # All channels of a group occur equally often on every axis.
  of_kind = np.zeros((axes.num_kinds, *axes.constant.shape))
  of_kind[axes.kind, axes.term] = axes.times
  elements = np.stack([of_kind[axes.kind_of[g.channels[0]]] for g in graph.groups], axis=-1)
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
  found = [
    _landings(len(group.channels), table.block, elements[..., index], axes.constant, knots)
    for index, group in enumerate(graph.groups)
  ]
  landings = np.full((len(found), max(map(len, found))), np.inf)
  for index, each in enumerate(found):
    landings[index, : len(each)] = each
  members = np.zeros((len(graph.groups), graph.num_channels), np.float32)
  members[graph.group_of, np.arange(graph.num_channels)] = 1
  return Interpolated(
    members,
    landings,
    elements,
    axes.constant,
    knots,
    seconds.reshape(len(layers), -1),
    np.float64(table.constant),
  )


def _landings(
  size: int, block: int, elements: np.ndarray, fixed: np.ndarray, knots: np.ndarray
) -> list[int]:
  """Returns at how many channels of a group the hardware wastes nothing, rising, from 0 on.

  These are the multiples of the block size, the whole group, and within the first block the numbers
  that were measured.

  Args:
    size: number of channels.
    block: number of channels that the hardware computes together.
    elements: how many elements of each axis a channel has, `[L, D]`.
    fixed: number of elements of each axis that are never removed, `[L, D]`.
    knots: measured widths, `[L, D, K]`.
  """
  on = elements > 0
  measured = (knots[on] - fixed[on][:, None]) / elements[on][:, None]
  within = {int(n) for n in measured.ravel() if 0 < n < min(block, size) and n == int(n)}
  return sorted({0, size, *within, *range(block, size, block)})


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
