"""Latency tables that are made by hand for any graph."""

import itertools

import numpy as np

from gatprune_jax.channels import LatencyTable
from gatprune_jax.channels.costs.latency_table import TimedLayer, TimedShape


def table_of(graph, seconds_of, knots_of=lambda width: range(1, width + 1), **fields):
  """Returns a table in which every layer has a shape of its own.

  Args:
    graph: the network's channels.
    seconds_of: (index of the layer, widths) -> seconds.
    knots_of: number of elements of an axis -> the widths at which times are known.
    **fields: fields of the table that differ.
  """
  shapes, layers = [], []
  for layer in (layer for layer in graph.layers if layer.cut_axes):
    grid = tuple(tuple(knots_of(len(ids))) for ids in layer.cut_axes)
    times = [seconds_of(len(layers), widths) for widths in itertools.product(*grid)]
    shapes.append(TimedShape(layer.name, grid, np.reshape(times, [*map(len, grid)])))
    layers.append(TimedLayer(layer.name, layer.kind, len(layers), 1))
  standard = {
    "device": "abacus", "threads": 1, "batch": 1, "block": 1, "date": "2026-01-01T00:00:00+00:00",
    "versions": {"beads": "10"}, "constant": 0.0, "factor": 1.0,
  }  # fmt: skip
  return LatencyTable(**{**standard, **fields}, shapes=shapes, layers=layers)


def random_table(graph, seed=0, **fields):
  """Returns a table whose times are random, so that wider layers are often faster.

  Args:
    graph: the network's channels.
    seed: seed of the times.
    **fields: fields of the table that differ.
  """
  rng = np.random.default_rng(seed)
  knots_of = lambda width: sorted({*rng.integers(1, width + 1, 3).tolist(), width})
  seconds_of = lambda _, widths: float(rng.uniform(0.5, 1.5) * (1 + np.prod(widths)))
  return table_of(graph, seconds_of, knots_of, **fields)
