"""Predicts how runs scale over TPU chips: `python -m experiments.scaling`.

Prints the work and the communicated bytes of one update of the search and of one step of dense
training, and for each number of chips D the time T(D) and the efficiency T(1) / (D T(D)).
The counts of MACs, parameters and channels are exact; everything else is an assumption, which
`launch/SCALING.md` names and discusses.
"""

import math
import sys
from typing import NamedTuple

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.runs.report import markdown_table

_DEVICES = flags.DEFINE_list("devices", ["8", "64", "512"], "Numbers of chips.")
_SERIAL = flags.DEFINE_float(
  "serial_share", 0.01, "Share of one chip's update that every chip repeats: policy and critic."
)

_SCORE_BYTES = 8  # two float32 for each mask


class Chip(NamedTuple):
  """An accelerator chip and the links between chips."""

  flops: float  # peak FLOP a second in bfloat16
  bandwidth: float  # bytes a second out of one chip, over all links of a slice
  hop: float  # seconds between neighbours
  slice_chips: int  # chips that these links connect, as a square torus
  outer_bandwidth: float  # bytes a second out of one whole slice
  outer_latency: float  # seconds between slices


# docs.cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 400 GB/s both ways together, 256 chips in a 2D
# torus, 6.4 Tbit/s out of a pod. Latencies are assumptions: 1 us a hop, 50 us between slices.
V5E = Chip(197e12, 200e9, 1e-6, 256, 800e9, 50e-6)


class Architecture(NamedTuple):
  """Counts of the network that is pruned."""

  macs: float  # of one image
  params: float
  norms: int  # batch-norm layers
  norm_channels: int  # channels of all these layers together


class Work(NamedTuple):
  """The work of one update of the search, and of one step of dense training."""

  masks: int  # B, masks scored in an update
  calibration: int  # m, images for the batch-norm statistics of each mask
  reward: int  # n, images that score each mask
  confirmation: int  # a, images of the confirmation split, which score one mask
  batch: int  # images in a step of dense training, on all chips together
  utilisation: float  # share of the peak that convolutions reach


def mask_flops(network: Architecture, images: int) -> float:
  """Returns the FLOPs of forward passes over images under one mask.

  A mask multiplies activations, so a masked network computes all MACs of the dense one.
  """
  return 2 * network.macs * images


def latency(chip: Chip, devices: int) -> float:
  """Returns the seconds until the first byte has reached all chips.

  In a square torus of n chips a byte crosses half of a ring of sqrt(n) chips in each of the two
  directions, which is sqrt(n) hops.
  """
  within = math.sqrt(min(devices, chip.slice_chips)) if devices > 1 else 0.0
  return within * chip.hop + (chip.outer_latency if devices > chip.slice_chips else 0.0)


def gather_seconds(chip: Chip, total: float, devices: int) -> float:
  """Returns the seconds of an all-gather.

  Args:
    chip: the accelerator.
    total: bytes of the result; each chip begins with an equal part of them.
    devices: number of chips.
  """
  inside = total * (devices - 1) / devices / chip.bandwidth
  outside = total / chip.outer_bandwidth if devices > chip.slice_chips else 0.0
  return latency(chip, devices) + inside + outside


def reduce_seconds(chip: Chip, total: float, devices: int) -> float:
  """Returns the seconds of an all-reduce, as a reduce-scatter and an all-gather.

  Args:
    chip: the accelerator.
    total: bytes that are reduced.
    devices: number of chips.
  """
  return 2 * gather_seconds(chip, total, devices)


def update_seconds(
  chip: Chip, network: Architecture, work: Work, serial_share: float, devices: int
) -> float:
  """Returns the seconds of one update of the search.

  The masks are shared out over the chips, and their scores are gathered. Every chip repeats the
  rest: it scores one mask on the confirmation split, and updates policy and critic.

  Args:
    chip: the accelerator.
    network: counts of the network that is pruned.
    work: numbers of masks and images in one update.
    serial_share: share of one chip's update that policy and critic take, in [0, 1).
    devices: number of chips.
  """
  rate = chip.flops * work.utilisation
  one = mask_flops(network, work.calibration + work.reward) / rate
  confirmation = mask_flops(network, work.calibration + work.confirmation) / rate
  learning = serial_share / (1 - serial_share) * (work.masks * one + confirmation)
  gather = gather_seconds(chip, _SCORE_BYTES * work.masks, devices)
  return math.ceil(work.masks / devices) * one + gather + confirmation + learning


def step_seconds(chip: Chip, network: Architecture, work: Work, devices: int) -> float:
  """Returns the seconds of one step of dense training.

  The images are shared out over the chips. A step is a forward and a backward pass, two all-reduces
  of each batch-norm layer's statistics (one in each pass), and an all-reduce of the gradients.

  Args:
    chip: the accelerator.
    network: counts of the network that is trained.
    work: number of images in one step.
    devices: number of chips.
  """
  images = math.ceil(work.batch / devices)
  compute = 3 * mask_flops(network, images) / (chip.flops * work.utilisation)
  each = 2 * 4 * network.norm_channels / network.norms  # bytes of one layer's mean and variance
  norms = 2 * network.norms * reduce_seconds(chip, each, devices)
  return compute + norms + reduce_seconds(chip, 4 * network.params, devices)


def efficiency(seconds, devices: int) -> float:
  """T(1) / (D T(D)), where T(D) = `seconds(D)` is the time on D = `devices` chips."""
  return seconds(1) / (devices * seconds(devices))


def count(name: str, num_classes: int, side: int) -> Architecture:
  """Counts MACs, parameters and batch-norm layers of a network of `gatprune_jax.models`.

  Args:
    name: a key of `gatprune_jax.models.MODELS`.
    num_classes: outputs of the last dense layer.
    side: pixels of the square images.
  """
  module, x = models.model(name, num_classes), jnp.zeros((1, side, side, 3))
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  graph = gp.trace(models.eval_function(module), shapes, x)
  everything = np.ones(graph.num_channels)
  statistics = [leaf.size for leaf in jax.tree.leaves(shapes["batch_stats"])]  # means, variances
  return Architecture(
    gp.macs(graph, everything), gp.params(graph, everything), len(statistics) // 2,
    sum(statistics) // 2,
  )  # fmt: skip


# {name: (network, number of classes, side of the images, work)}. Numbers of images are those of
# experiments/configs, except the batch of 4096. The number of masks B is the one in the name.
CASES = {
  "resnet20, B = 32": ("resnet20", 10, 32, Work(32, 512, 1500, 500, 128, 0.05)),
  "resnet20, B = 512": ("resnet20", 10, 32, Work(512, 512, 1500, 500, 128, 0.05)),
  "resnet50, B = 256": ("resnet50", 1000, 224, Work(256, 256, 3750, 1250, 256, 0.3)),
  "resnet50, B = 4096": ("resnet50", 1000, 224, Work(4096, 256, 3750, 1250, 4096, 0.3)),
}


def main(argv: list[str]) -> None:
  """Checks the flags, and prints the tables."""
  problem = None
  if len(argv) > 1:
    problem = f"argument {argv[1]!r} is not a flag: use --devices=N,N or --serial_share=X"
  elif not all(text.isdecimal() and int(text) for text in _DEVICES.value):
    problem = f"--devices={','.join(_DEVICES.value)}: give positive whole numbers"
  elif not 0 <= _SERIAL.value < 1:
    problem = f"--serial_share={_SERIAL.value}: it must be at least 0 and below 1"
  if problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)
  devices = [int(text) for text in _DEVICES.value]
  networks = {name: count(name, classes, side) for name, classes, side, _ in CASES.values()}
  searches, trainings = [], []
  for case, (name, _, _, work) in CASES.items():
    network = networks[name]

    def update(number, network=network, work=work):
      return update_seconds(V5E, network, work, _SERIAL.value, number)

    def step(number, network=network, work=work):
      return step_seconds(V5E, network, work, number)

    flops = work.masks * mask_flops(network, work.calibration + work.reward)
    searches.append([
      case, f"{flops:.3g}", f"{_SCORE_BYTES * work.masks:,}", f"{1e3 * update(1):,.1f}",
      *(f"{1e3 * update(n):,.2f} / {efficiency(update, n):.0%}" for n in devices),
    ])  # fmt: skip
    moved = 4 * network.params + 2 * 2 * 4 * network.norm_channels
    trainings.append([
      f"{name}, batch {work.batch}", f"{3 * mask_flops(network, work.batch):.3g}",
      f"{moved:,.0f}", f"{1e3 * step(1):,.2f}",
      *(f"{1e3 * step(n):,.2f} / {efficiency(step, n):.0%}" for n in devices),
    ])  # fmt: skip
  trainings = [row for i, row in enumerate(trainings) if row not in trainings[:i]]
  numbers = [f"{number} chips: ms / efficiency" for number in devices]
  print(markdown_table(("update of the search", "FLOP", "bytes", "1 chip: ms", *numbers), searches))
  print()
  print(markdown_table(("step of training", "FLOP", "bytes", "1 chip: ms", *numbers), trainings))
  print()
  counts = [
    [name, f"{network.macs:,.0f}", f"{network.params:,.0f}", network.norms, network.norm_channels]
    for name, network in networks.items()
  ]
  print(markdown_table(("network", "MACs", "parameters", "norms", "norm channels"), counts))


if __name__ == "__main__":
  app.run(main)
