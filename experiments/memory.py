"""Compares activation_bytes with what XLA plans: `python -m experiments.memory`.

For each network, and for random masks, prints the count of `gatprune_jax.activation_bytes`, and the
memory that XLA's `memory_analysis` gives for the compact network: its temporary arrays, its input
and its output. Nothing runs; each network is only compiled, twice: so that XLA hands single
convolutions and dot products to its library on CPU, and with XLA's own choice of what to hand to
it. The counts differ where XLA

* packs arrays of different sizes with gaps between them, which narrow networks show most;
* hands a run of layers to the library, whose working memory it does not count;
* copies a kernel that is larger than its image, as it does in the last layers of VGG on CIFAR.
"""

import sys

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.channels import random_widths, written
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.runtime import compilation

_NETWORKS = flags.DEFINE_list(
  "networks",
  ["resnet20:32", "resnet50:224", "vgg16:224", "mobilenet_v2:224"],
  "Names of networks, each with the height and width of its images.",
)
# Names of XLA's options are explained in `gatprune_jax/runtime/compilation.py`.
_SINGLE = {
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
  )
}
_BATCH = flags.DEFINE_integer("batch", 8, "Number of images in a forward pass.", lower_bound=1)
_MASKS = flags.DEFINE_integer("masks", 3, "Number of random masks.", lower_bound=0)


def planned(small: gp.Compact, x: jax.ShapeDtypeStruct, options: dict[str, str]) -> int:
  """Returns the bytes that XLA plans for a forward pass, beside the variables.

  Args:
    small: the compact network.
    x: shape and dtype of the input.
    options: options of the compiler.
  """
  program = jax.jit(small.apply, compiler_options=options).lower(small.variables, x)
  plan = program.compile().memory_analysis()
  return plan.temp_size_in_bytes + plan.output_size_in_bytes + x.size * x.dtype.itemsize


def compare(name: str, size: int, batch: int, num_masks: int) -> list[list[str]]:
  """Returns the rows of a network: the dense one, and compact ones.

  Args:
    name: a key of `models.MODELS`.
    size: height and width of the images.
    batch: number of images in a forward pass.
    num_masks: number of random masks.
  """
  module = models.model(name, 10)
  x = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
  specs = jax.eval_shape(module.init, jax.random.key(0), x)
  variables = jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), specs)
  apply = models.eval_function(module)
  graph, rng = gp.trace(apply, variables, x), np.random.default_rng(0)
  masks = [np.ones(graph.num_channels, bool)]
  masks += [random_widths(graph, rng) for _ in range(num_masks)]
  rows = []
  for mask in masks:
    counted = gp.activation_bytes(graph, mask, batch)
    small = gp.compact(graph, apply, variables, mask)
    rows.append([name, f"{size}", f"{mask.mean():.2f}", written(counted)])
    for options in (compilation.known(**_SINGLE), {}):
      plan = planned(small, x, options)
      rows[-1] += [written(plan), f"{counted / plan:.3f}"]
  return rows


def main(argv: list[str]) -> None:
  """Prints one row for every network and mask."""
  if len(argv) > 1:
    sys.exit(f"error: argument {argv[1]!r} is not a flag: use --networks=resnet20:32")
  rows = []
  for network in _NETWORKS.value:
    name, _, size = network.partition(":")
    if not size.isdecimal() or int(size) < 1:
      sys.exit(f"error: --networks has {network!r}: give NAME:SIZE, such as resnet20:32")
    try:
      rows += compare(name, int(size), _BATCH.value, _MASKS.value)
    except gp.InputError as error:
      sys.exit(f"error: {error}")
  headers = (
    "network", "image", "kept", "counted, bytes", "single layers", "ratio", "XLA's choice", "ratio"
  )  # fmt: skip
  print(markdown_table(headers, rows))


if __name__ == "__main__":
  app.run(main)
