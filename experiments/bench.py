"""Measures speed as ratios within one run: `python -m experiments.bench --out=bench.json`.

Prints a table and writes the same rows as JSON. Timings of one row alternate, so that a busy
machine slows both sides alike. A new measurement is a function in `BENCHMARKS`.
"""

from collections.abc import Callable
import os
import statistics
import sys
import time
from typing import Any, NamedTuple

from absl import app, flags, logging
import jax
import numpy as np

import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax import workdir as runs
from gatprune_jax.report import benchmark_table

_OUT = flags.DEFINE_string("out", None, "File for the rows as JSON; it must not exist yet.")
_ONLY = flags.DEFINE_list("only", None, "Names of the benchmarks to run; all unless given.")


class Row(NamedTuple):
  """One comparison."""

  name: str
  seconds: float  # of what is measured
  reference: str
  reference_seconds: float
  ratio: float  # reference_seconds / seconds: above 1 is faster than the reference
  note: str


class Traced(NamedTuple):
  """A network with random weights and an input."""

  fn: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  x: jax.Array


def network(name: str, side: int, batch: int, num_classes: int) -> Traced:
  """A network of `models` by name as initialised, on normal noise `[batch, side, side, 3]`."""
  module = models.model(name, num_classes)
  x = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x[:1])
  return Traced(models.eval_function(module), variables, x)


def tracing() -> list[Row]:
  """How long channels take to find and to remove, first call of the process."""
  module = models.model("resnet50", 1000)
  fn, x = models.eval_function(module), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  variables = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
  graph, traced = timed(lambda: gp.trace(fn, variables, x))
  _, jaxpr = timed(lambda: jax.make_jaxpr(lambda v, x: fn(v, x))(variables, x))
  mask = half_width(graph)

  def remove():
    small = gp.compact(graph, fn, variables, mask)
    small.apply.trace(small.variables, x)
    return jax.block_until_ready(small.variables)

  _, compacted = timed(remove)
  note = f"{graph.num_channels} channels"
  reference = "jax.make_jaxpr"
  return [
    Row("trace resnet50 224x224", traced, reference, jaxpr, jaxpr / traced, note),
    Row("compact resnet50 224x224", compacted, reference, jaxpr, jaxpr / compacted, note),
  ]


def half_width_speed() -> list[Row]:
  """Forward passes of networks with half of every group's channels, against the dense ones."""
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
      Row(
        f"half-width {name}, {batch} images {side}x{side}",
        seconds[0],
        "dense",
        seconds[1],
        seconds[1] / seconds[0],
        f"{macs:.2f} times fewer MACs",
      )
    )
  return rows


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
  "tracing": tracing,
  "half_width_speed": half_width_speed,
}


def half_width(graph: gp.ChannelGraph) -> np.ndarray:
  """A mask that keeps the first half of each group, at least one channel, bool `[N]`."""
  mask = np.zeros(graph.num_channels, bool)
  for group in graph.groups:
    mask[group.channels[: max(1, len(group.channels) // 2)]] = True
  return mask


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
  """The result of one call, and its seconds."""
  start = time.perf_counter()
  result = fn()
  return result, time.perf_counter() - start


def alternating(*fns: Callable[[], Any], repeats: int = 9) -> list[float]:
  """Median seconds of each function, called in turn after a first call that is not counted."""
  run = lambda fn: jax.block_until_ready(fn())
  for fn in fns:
    run(fn)
  rounds = [[timed(lambda fn=fn: run(fn))[1] for fn in fns] for _ in range(repeats)]
  return [statistics.median(times) for times in zip(*rounds, strict=True)]


def main(argv: list[str]) -> None:
  """Runs the benchmarks."""
  logging.set_verbosity(logging.WARNING)  # jax tells which backends it does not find
  unknown = set(_ONLY.value or ()) - BENCHMARKS.keys()
  problem = None
  if len(argv) > 1:
    problem = f"argument {argv[1]!r} is not a flag: use --out=FILE or --only=NAME,NAME"
  elif not _OUT.value or os.path.exists(_OUT.value):
    problem = f"--out is {_OUT.value}: name a file that does not exist yet"
  elif unknown:
    problem = f"--only names {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}"
  if problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)
  rows = [row for name in _ONLY.value or BENCHMARKS for row in BENCHMARKS[name]()]
  device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores"
  print(f"{device}\n\n{benchmark_table(rows)}")
  content = {"device": device, "versions": runs.versions(), "rows": [r._asdict() for r in rows]}
  runs.write_json(_OUT.value, content)


if __name__ == "__main__":
  app.run(main)
