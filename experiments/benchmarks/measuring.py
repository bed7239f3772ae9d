"""What every benchmark is made of: rows, clocks, and networks with random weights."""

from collections.abc import Callable
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import gatprune_jax as gp
from gatprune_jax import models

_SECONDS = 2.0  # short functions are called more often, for so long
_MOST_REPEATS = 50


class Row(NamedTuple):
  """One comparison."""

  name: str
  seconds: float  # of what is measured
  reference: str
  reference_seconds: float
  ratio: float  # reference_seconds / seconds: above 1 is faster than the reference
  note: str


def rows_against(name: str, seconds: float, references: dict[str, float], note: str) -> list[Row]:
  """One row for each reference, `{its name: its seconds}`."""
  return [
    Row(name, seconds, reference, other, other / seconds, note)
    for reference, other in references.items()
  ]


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
  """The result of one call, and its seconds."""
  start = time.perf_counter()
  result = fn()
  return result, time.perf_counter() - start


def alternating(*fns: Callable[[], Any], repeats: int = 9) -> list[float]:
  """Median seconds of each function, called in turn after a first call that is not counted.

  Args:
    *fns: what is measured.
    repeats: calls of each at least.
  """
  run = lambda fn: jax.block_until_ready(fn())
  for fn in fns:
    run(fn)
  rounds, start = [], time.perf_counter()
  while len(rounds) < repeats or (
    len(rounds) < _MOST_REPEATS and time.perf_counter() - start < _SECONDS
  ):
    rounds.append([timed(lambda fn=fn: run(fn))[1] for fn in fns])
  return [statistics.median(times) for times in zip(*rounds, strict=True)]


def dtypes() -> tuple[str, ...]:
  """In which the networks are computed that are measured."""
  return ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")


class Traced(NamedTuple):
  """A network with random weights and an input."""

  fn: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  x: jax.Array


def network(name: str, side: int, batch: int, num_classes: int, dtype: str = "float32") -> Traced:
  """A network of `models` by name as initialised, on normal noise `[batch, side, side, 3]`."""
  module = models.model(name, num_classes)
  x = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x[:1])
  return Traced(models.eval_function(module, dtype), variables, x)


def half_width(graph: gp.ChannelGraph) -> np.ndarray:
  """A mask that keeps the first half of each group, at least one channel, bool `[N]`."""
  mask = np.zeros(graph.num_channels, bool)
  for group in graph.groups:
    mask[group.channels[: max(1, len(group.channels) // 2)]] = True
  return mask
