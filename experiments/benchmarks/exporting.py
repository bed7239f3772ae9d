"""Benchmarks of exported files: sizes, single-thread times and outputs of dense and pruned ones."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import numpy as np

from experiments.benchmarks.detector import Detector
from experiments.benchmarks.measuring import Measurement, alternating
from experiments.benchmarks.peers import require
import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.channels import Compact
from gatprune_jax.channels.files import litert
from gatprune_jax.channels.files.onnx import export as onnx
from gatprune_jax.channels.files.portable import Portable, portable, relative_difference

# {name: module and side of its images}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
  "resnet20": (lambda: models.model("resnet20", 10), 32),
  "mobilenet_v2": (lambda: models.model("mobilenet_v2", 10), 32),
  "densenet40": (lambda: models.model("densenet40", 10), 32),
  "c2f detector": (Detector, 64),
}


class Pair(NamedTuple):
  """A network with random weights, and what a random mask leaves of it."""

  dense: Compact
  pruned: Compact
  x: np.ndarray  # [batch, side, side, 3]
  macs: float  # the pruned network's share


def pair(name: str, batch: int = 1, keep: float = 0.5) -> Pair:
  """Makes a network of `NETWORKS` and its half under a random mask, which makes widths uneven.

  Args:
    name: a key of `NETWORKS`.
    batch: number of images, which are normal noise.
    keep: the probability that a channel is kept; of every group one is kept at least.
  """
  make, side = NETWORKS[name]
  module, rng = make(), np.random.default_rng(0)
  x = rng.standard_normal((batch, side, side, 3)).astype(np.float32)
  variables = random_variables(module, x)
  fn = models.eval_function(module) if name in models.MODELS else module.apply
  graph = gp.trace(fn, variables, x)
  mask = rng.random(graph.num_channels) < keep
  for group in graph.groups:
    mask[rng.choice(group.channels)] = True
  share = gp.macs(graph, mask) / gp.macs(graph, np.ones(graph.num_channels))
  return Pair(Compact(fn, variables), gp.compact(graph, fn, variables, mask), x, share)


def random_variables(module: nn.Module, x: np.ndarray) -> Any:
  """Returns variables as a module's `init` makes them, without compiling it.

  Kernels are normal with variance 2 / fan-in, scales and variances near 1, all others near 0.
  """
  rng = np.random.default_rng(1)

  def draw(path: tuple, leaf: Any) -> np.ndarray:
    noise = rng.standard_normal(leaf.shape).astype(leaf.dtype)
    match path[-1].key:
      case "kernel":
        return noise * np.float32(2 / np.prod(leaf.shape[:-1])) ** 0.5
      case "scale" | "var":
        return 1 + 0.1 * abs(noise)
    return 0.1 * noise

  return jax.tree.map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), x))


def exported_litert() -> Iterator[Measurement]:
  """Compares LiteRT files of pruned networks with those of the dense ones."""
  for package in ("litert_converter", "ai_edge_litert"):
    require(package)
  yield from _rows("LiteRT", lambda network: litert.convert(network, 1), litert.runner)


def exported_onnx() -> Iterator[Measurement]:
  """Compares ONNX files of pruned networks with those of the dense ones."""
  for package in ("onnx", "onnxruntime"):
    require(package)
  yield from _rows("ONNX", lambda network: onnx.convert(network, None), onnx.runner)


def _rows(
  runtime: str, convert: Callable[[Portable], bytes], runner: Callable[..., Callable]
) -> Iterator[Measurement]:
  for name in NETWORKS:
    case = pair(name)
    sizes, runs, differences = [], [], []
    for network in (case.pruned, case.dense):
      whole = portable("", network, case.x)
      content = convert(whole)
      run = runner(content, whole)
      sizes.append(len(content) / 1e6)
      runs.append(lambda run=run, x=whole.x: run(x))
      pairs = zip(run(whole.x), jax.jit(whole.apply)(*whole.x), strict=True)
      differences.append(max(relative_difference(*values) for values in pairs))
    seconds = alternating(*runs, repeats=30)
    yield Measurement(
      f"{runtime} file of pruned {name}",
      seconds[0],
      "dense file",
      seconds[1],
      seconds[1] / seconds[0],
      f"{case.macs:.2f} of the MACs, {sizes[0]:.2f} of {sizes[1]:.2f} MB, outputs within "
      f"{differences[0]:.0e} and {differences[1]:.0e} of JAX's",
    )
