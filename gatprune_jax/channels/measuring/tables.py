"""Measures a network's latency table: its layers on a grid of widths, and some whole networks."""

from collections.abc import Callable, Sequence
import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.latency_table import LatencyTable, TimedLayer, TimedShape
from gatprune_jax.channels.costs.resources.latency import interpolated
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.channels.measuring.layers import LayerProgram, layer_programs
from gatprune_jax.channels.measuring.networks import (
  examples,
  network_program,
  with_values,
)
from gatprune_jax.channels.measuring.random_masks import uneven_mask
from gatprune_jax.channels.tracing.relabelling import bind
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.timing import Program, as_program, time_in_turn, typical

# Kernels compute channels in blocks of so many, and a block that is not full costs as much as one
# that is, or more. So knots are at multiples of it.
_BLOCK = {"cpu": 8, "gpu": 8, "tpu": 128}
_INTERVALS = 4  # number of equal intervals of an axis of the grid
# An axis of fewer blocks has knots within the first one as well.
_NARROW = 8
_NETWORKS = 8  # compact networks by which the sum over layers is calibrated


def measure_latency(
  graph: ChannelGraph, fn: Callable, variables: Any, x: Any, batch: int = 1
) -> LatencyTable:
  """Measures what a network's layers cost on the device at hand, as functions of kept channels.

  Each distinct layer is compiled at a grid of kept channels, together with a scale, an offset and a
  rectifier behind it, and all of them are timed in turn; the time of an empty program is taken off.
  Then some compact networks with random masks are timed, and a constant and a factor are fitted to
  their times by least squares of the relative errors:

    seconds(mask) = constant + factor * sum over layers of seconds_l(kept inputs, kept outputs)

  On a CPU a time is the processor time of one core; see `gatprune_jax.runtime.timing`.

  Args:
    graph: the channels that `trace` returned.
    fn: the network in eval mode, `fn(variables, x)`.
    variables: the dense variables, or their `jax.ShapeDtypeStruct`s; times do not depend on values.
    x: one example `[1, ...]` or more.
    batch: number of examples in a forward pass.

  Returns:
    The table, for `Deployment(batch, latency_table=table)`; `write_latency_table` keeps it.

  Raises:
    InputError: if the batch is not positive, or the network has other layers at this batch than at
      that of the trace.
  """
  if batch < 1:
    raise InputError(f"batch is {batch}: latency is measured of one example at least")
  variables = with_values(variables)
  binding = bind(graph, fn, (variables, examples(fn, variables, x, batch)))
  layers = layer_programs(graph, binding)
  numbers: dict[tuple, int] = {}
  distinct: list[LayerProgram] = []
  timed_layers = []
  for each in layers:
    number = numbers.setdefault(each.signature(), len(numbers))
    if number == len(distinct):
      distinct.append(each)
    timed_layers.append(TimedLayer(each.layer.name, each.layer.kind, number, each.times))
  table = LatencyTable(
    device=device_name(),
    threads=1,
    batch=batch,
    block=_block(),
    date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    versions=_versions(),
    constant=0.0,
    factor=1.0,
    shapes=_time_shapes(distinct),
    layers=timed_layers,
  )
  masks = _calibration_masks(graph)
  programs = [network_program(graph, fn, variables, mask, x, batch) for mask in masks]
  measured = typical(time_in_turn(programs))
  summed = np.array([interpolated(graph, table).cost(mask) for mask in masks])
  constant, factor = fit_line(summed, measured)
  return dataclasses.replace(table, constant=constant, factor=factor)


def device_name() -> str:
  """Returns the kind of the device at hand, and for a CPU its model."""
  device = jax.devices()[0]
  return f"{device.platform} {device.device_kind if device.platform != 'cpu' else _processor()}"


def fit_line(summed: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
  """Fits measured = constant + factor * summed by least squares of the relative errors.

  Args:
    summed: sums of the times of layers, seconds, `[n]`.
    measured: times of networks, seconds, `[n]`.

  Returns:
    The constant and the factor. Neither is negative: where the best constant is, it is 0.
  """
  columns = np.stack([1 / measured, summed / measured], axis=1)
  (constant, factor), *_ = np.linalg.lstsq(columns, np.ones(len(measured)))
  if constant < 0:
    ratios = summed / measured
    constant, factor = 0.0, ratios.sum() / (ratios @ ratios)
  return float(constant), max(float(factor), 0.0)


def knots(num_channels: int, block: int) -> list[int]:
  """Returns the numbers of channels at which a layer is timed, rising, the last of which is all.

  They are multiples of the block size. An axis of few blocks also has knots within the first one.

  Args:
    num_channels: number of channels of an axis.
    block: number of channels that the device computes together.
  """
  step = block * -(-num_channels // (block * _INTERVALS))
  inside = {1, block // 2} if num_channels < _NARROW * block else set()
  found = {*inside, block, *range(step, num_channels, step), num_channels}
  return sorted(count for count in found if count <= num_channels)


def _block() -> int:
  """Returns the number of channels that the device at hand computes together."""
  return _BLOCK.get(jax.default_backend(), 8)


def _time_shapes(distinct: Sequence[LayerProgram]) -> list[TimedShape]:
  """Times every distinct layer at every point of its grid, all of them in turn."""
  grids = [[knots(n, _block()) for n in each.num_channels] for each in distinct]
  programs = [_empty_program()]
  for each, grid in zip(distinct, grids, strict=True):
    for kept in itertools.product(*grid):
      run, arguments = each.program(kept)
      programs.append(as_program(run, *arguments, with_values=False))
  empty, *seconds = typical(time_in_turn(programs))
  shapes, first = [], 0
  for each, grid in zip(distinct, grids, strict=True):
    sizes = tuple(map(len, grid))
    last = first + int(np.prod(sizes))
    times = np.maximum(np.array(seconds[first:last]) - empty, 0.0).reshape(sizes)
    widths = tuple(
      tuple(each.widths([n if k == axis else 1 for k in range(len(grid))])[axis] for n in counts)
      for axis, counts in enumerate(grid)
    )
    shapes.append(TimedShape(each.what(), widths, times))
    first = last
  return shapes


def _empty_program() -> Program:
  """Returns a program that does nothing but be called, with as many arguments as a layer has."""
  one = jax.ShapeDtypeStruct((1,), jnp.float32)
  return as_program(lambda *args: sum(args), one, one, one, one, with_values=False)


def _calibration_masks(graph: ChannelGraph) -> list[np.ndarray]:
  """Returns the dense mask, and masks of random widths that keep from a little to most of it."""
  rng, masks = np.random.default_rng(0), [np.ones(graph.num_channels, bool)]
  for share in np.linspace(0.1, 0.9, _NETWORKS - 1):
    masks.append(uneven_mask(graph, rng, share, _block()))
  return masks


def _processor() -> str:
  """Returns the model of the processor, as well as the system tells it."""
  if os.path.exists("/proc/cpuinfo"):  # Linux
    with open("/proc/cpuinfo") as file:
      for line in file:
        if line.startswith("model name"):
          return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
  return {
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    "python": platform.python_version(),
  }
