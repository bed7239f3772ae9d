"""What all benchmarks use: rows of results, timing, and networks with random weights."""

from collections.abc import Callable
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import gatprune_jax as gp
from gatprune_jax import models

_SECONDS = 2.0  # seconds for which calls of short functions are repeated
_MOST_REPEATS = 50


class Measurement(NamedTuple):
  """One comparison of a measured function with a reference."""

  name: str
  seconds: float  # seconds of the measured function
  reference: str
  reference_seconds: float
  ratio: float  # reference_seconds / seconds: above 1 is faster than the reference
  note: str


def rows_against(
  name: str, seconds: float, references: dict[str, float], note: str
) -> list[Measurement]:
  """Makes one row for each reference.

  Args:
    name: name of the measured function.
    seconds: seconds of the measured function.
    references: {name of a reference: its seconds}.
    note: note of every row.
  """
  return [
    Measurement(name, seconds, reference, other, other / seconds, note)
    for reference, other in references.items()
  ]


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
  """Returns the result of one call, and the seconds that the call took."""
  start = time.perf_counter()
  result = fn()
  return result, time.perf_counter() - start


def alternating(*fns: Callable[[], Any], repeats: int = 9) -> list[float]:
  """Returns the median seconds of each function.

  The functions are called in turn, after a first call of each that is not counted.

  Args:
    *fns: the functions.
    repeats: least number of counted calls of each.
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
  """Returns the dtypes in which networks are measured on this backend."""
  return ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")


class Traced(NamedTuple):
  """A network with random weights and an input."""

  fn: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  x: jax.Array


def network(name: str, side: int, batch: int, num_classes: int, dtype: str = "float32") -> Traced:
  """Makes a network of `models` with its initial variables, and normal noise as its input.

  Args:
    name: a key of `models.MODELS`.
    side: pixels of the images.
    batch: number of images; the input is `[batch, side, side, 3]`.
    num_classes: outputs of the last dense layer.
    dtype: dtype in which the network computes.
  """
  module = models.model(name, num_classes)
  x = jax.random.normal(jax.random.key(0), (batch, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x[:1])
  return Traced(models.eval_function(module, dtype), variables, x)


def half_width(graph: gp.ChannelGraph) -> np.ndarray:
  """Returns a mask that keeps the first half of each group, at least one channel; bool `[N]`."""
  mask = np.zeros(graph.num_channels, bool)
  for group in graph.groups:
    mask[group.channels[: max(1, len(group.channels) // 2)]] = True
  return mask
