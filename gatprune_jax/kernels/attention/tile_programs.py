"""What the GPU kernels of attention on tiles share; they are written in Pallas for Triton.

Arrays have heads first. A program has whole arrays, and reads and writes the parts of one head that
are its own. Logits are in units of ln 2, since powers of two are what the hardware has.

JAX deprecates this backend of Pallas from version 0.11 on; the versions that setup.py admits have
it. To admit one that has not, make the import conditional and `run_here` say no: attention is on
blocks then.
"""

from collections.abc import Callable, Sequence
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from gatprune_jax.kernels.attention.tiles import NODES_AT_ONCE, PLACES_AT_ONCE

LOG2_E = math.log2(math.e)
LOWEST = float(jnp.finfo(jnp.float32).min)


def run_here() -> bool:
  """Whether the kernels compile here: for NVIDIA's GPUs of compute capability 8 and above."""
  device = jax.local_devices()[0]
  version = str(getattr(device, "compute_capability", ""))
  return device.platform == "gpu" and version.replace(".", "").isdigit() and float(version) >= 8.0


def block_nodes(block: jax.Array, num_nodes: int) -> jax.Array:
  """The nodes of a block; beyond the last one, that again."""
  return jnp.minimum(block * NODES_AT_ONCE + jnp.arange(NODES_AT_ONCE), num_nodes - 1)


def block_places(
  slots, block: jax.Array, chunk: jax.Array, number: int
) -> tuple[jax.Array, jax.Array]:
  """Some places of a block's nodes, `[NODES_AT_ONCE, PLACES_AT_ONCE]`, and which there are."""
  nodes = pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)
  places = slots[nodes, pl.ds(chunk * PLACES_AT_ONCE, PLACES_AT_ONCE)]
  return jnp.minimum(places, number - 1), places < number


def write_block(
  h: jax.Array, block: jax.Array, outputs: Sequence, values: Sequence[jax.Array]
) -> None:
  """What a block's nodes get, one value for each output."""
  for output, value in zip(outputs, values, strict=True):
    output[h, pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)] = value


def as_wide_as(scale: jax.Array, values: jax.Array) -> jax.Array:
  """The scale with as many dimensions as the values have."""
  return scale if scale.ndim == values.ndim else scale[..., None]


def flat_places(lines: Sequence[jax.Array]) -> list[jax.Array]:
  """`[H, L, SIDE, ...]` to `[H, L * SIDE, ...]`, the order that slots count in."""
  return [part.reshape(part.shape[0], -1, *part.shape[3:]) for part in lines]


def number_and_features(x: jax.Array, inner: tuple[int, ...]) -> list[tuple[int, ...]]:
  """Shapes of a number and of D features, `[H, *inner]` and `[H, *inner, D]`."""
  return [(len(x), *inner), (len(x), *inner, x.shape[-1])]


def call_kernel(
  kernel: Callable[..., None],
  inputs: Sequence[jax.Array],
  shapes: Sequence[tuple[int, ...]],
  grid: tuple[int, ...],
) -> list[jax.Array]:
  """The kernel's outputs, by GPU or, without one, by XLA operation by operation.

  Heads are first in the grid, so that programs that read the same norms run side by side.
  """
  return pl.pallas_call(
    kernel,
    out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
    grid=grid,
    interpret=not run_here(),
    compiler_params=triton.CompilerParams(num_warps=2, num_stages=2),
  )(*inputs)
