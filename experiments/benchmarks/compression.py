"""Benchmarks of finding channels, of removing them, and of the speed of the smaller network."""

import jax
import numpy as np

from experiments.benchmarks.measuring import Measurement, alternating, half_width, network, timed
import gatprune_jax as gp
from gatprune_jax import models


def tracing() -> list[Measurement]:
  """Measures the first calls of `trace` and `compact`, relative to `jax.make_jaxpr`."""
  module = models.model("resnet50", 1000)
  fn, x = models.eval_function(module), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  variables = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
  graph, traced = timed(lambda: gp.trace(fn, variables, x))
  _, jaxpr = timed(lambda: jax.make_jaxpr(lambda v, x: fn(v, x))(variables, x))
  mask = half_width(graph)

  def remove():
    small = gp.compact(graph, fn, variables, mask)
    jax.jit(small.apply).trace(small.variables, x)
    return jax.block_until_ready(small.variables)

  _, compacted = timed(remove)
  note = f"{graph.num_channels} channels"
  reference = "jax.make_jaxpr"
  return [
    Measurement("trace resnet50 224x224", traced, reference, jaxpr, jaxpr / traced, note),
    Measurement("compact resnet50 224x224", compacted, reference, jaxpr, jaxpr / compacted, note),
  ]


def half_width_speed() -> list[Measurement]:
  """Compares forward passes of networks with half of every group's channels with the dense ones."""
  rows = []
  for name, side, batch, num_classes in (
    ("resnet56", 32, 128, 10),
    ("vgg16", 32, 128, 10),
    ("resnet50", 224, 8, 1000),
    ("mobilenet_v2", 224, 8, 1000),
  ):
    fn, variables, x = network(name, side, batch, num_classes)
    graph = gp.trace(fn, variables, x)
    mask = half_width(graph)
    small = gp.compact(graph, fn, variables, mask)
    dense_fn = jax.jit(fn)
    seconds = alternating(
      lambda small=small, x=x: small.apply(small.variables, x),
      lambda fn=dense_fn, v=variables, x=x: fn(v, x),
    )
    macs = gp.macs(graph, np.ones(graph.num_channels)) / gp.macs(graph, mask)
    rows.append(
      Measurement(
        f"half-width {name}, {batch} images {side}x{side}",
        seconds[0],
        "dense",
        seconds[1],
        seconds[1] / seconds[0],
        f"{macs:.2f} times fewer MACs",
      )
    )
  return rows
