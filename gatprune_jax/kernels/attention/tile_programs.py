"""Functions shared by the GPU kernels of attention on tiles, written in Pallas for Triton.

Heads are the first axis of all arrays of nodes and places. Each program of a kernel gets references
to whole arrays, and reads and writes its own part of one head. Logits are in units of ln 2, because
the hardware computes powers of two.

JAX deprecates the Triton backend of Pallas from version 0.11 on; all versions that setup.py admits
have the backend. To admit a version without the backend, make the import conditional and let
`run_here` return False: attention is then computed on blocks.
"""

from collections.abc import Callable, Sequence
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from gatprune_jax.kernels.attention.tiles import NODES_AT_ONCE, PLACES_AT_ONCE

LOG2_E = math.log2(math.e)
LOWEST = float(jnp.finfo(jnp.float32).min)  # stands for the maximum of no logits


def run_here() -> bool:
  """Returns whether the kernels compile for the first device of this process.

  The kernels need an NVIDIA GPU of compute capability 8 or above.
  """
  device = jax.local_devices()[0]
  version = str(getattr(device, "compute_capability", ""))
  return device.platform == "gpu" and version.replace(".", "").isdigit() and float(version) >= 8.0


def block_nodes(block: jax.Array, num_nodes: int) -> jax.Array:
  """Returns the ids of a block's nodes `[NODES_AT_ONCE]`; ids past the last node repeat its id."""
  return jnp.minimum(block * NODES_AT_ONCE + jnp.arange(NODES_AT_ONCE), num_nodes - 1)


def block_places(
  slots, block: jax.Array, chunk: jax.Array, number: int
) -> tuple[jax.Array, jax.Array]:
  """Reads one chunk of the places of a block's nodes.

  Args:
    slots: reference to `Ends.slots`, `[N, K]`.
    block: index of a block of NODES_AT_ONCE nodes, a scalar.
    chunk: index of a chunk of PLACES_AT_ONCE places, a scalar.
    number: the number of places of all lines; entries of `slots` at or above it are padding.

  Returns:
    Places that are safe to read, int32 `[NODES_AT_ONCE, PLACES_AT_ONCE]`, and whether each of the
    places exists, bool of the same shape.
  """
  nodes = pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)
  places = slots[nodes, pl.ds(chunk * PLACES_AT_ONCE, PLACES_AT_ONCE)]
  return jnp.minimum(places, number - 1), places < number


def write_block(
  h: jax.Array, block: jax.Array, outputs: Sequence, values: Sequence[jax.Array]
) -> None:
  """Writes the values of a block's nodes, one array for each output.

  Args:
    h: index of the head, a scalar.
    block: index of the block of NODES_AT_ONCE nodes, a scalar.
    outputs: references to outputs, `[H, N]` or `[H, N, D]`.
    values: `[NODES_AT_ONCE]` or `[NODES_AT_ONCE, D]` for each output.
  """
  for output, value in zip(outputs, values, strict=True):
    output[h, pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)] = value


def as_wide_as(scale: jax.Array, values: jax.Array) -> jax.Array:
  """Returns the scale with a last axis of length one added if the values have one more axis."""
  return scale if scale.ndim == values.ndim else scale[..., None]


def flat_places(lines: Sequence[jax.Array]) -> list[jax.Array]:
  """Reshapes `[H, L, SIDE, ...]` to `[H, L * SIDE, ...]`, which `Ends.slots` indexes."""
  return [part.reshape(part.shape[0], -1, *part.shape[3:]) for part in lines]


def number_and_features(x: jax.Array, inner: tuple[int, ...]) -> list[tuple[int, ...]]:
  """Returns the shapes of one number and of D features, `[H, *inner]` and `[H, *inner, D]`."""
  return [(len(x), *inner), (len(x), *inner, x.shape[-1])]


def call_kernel(
  kernel: Callable[..., None],
  inputs: Sequence[jax.Array],
  shapes: Sequence[tuple[int, ...]],
  grid: tuple[int, ...],
) -> list[jax.Array]:
  """Runs a kernel on the GPU, or operation by operation in XLA where the kernels do not compile.

  Heads are the first axis of the grid, so that programs that read the same norms run side by side.

  Args:
    kernel: a Pallas kernel, called with references to the inputs and then to the outputs.
    inputs: whole arrays.
    shapes: the shape of every output; all outputs are float32.
    grid: the number of heads, then the number of lines or of blocks of nodes.

  Returns:
    The outputs.
  """
  return pl.pallas_call(
    kernel,
    out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
    grid=grid,
    interpret=not run_here(),
    compiler_params=triton.CompilerParams(num_warps=2, num_stages=2),
  )(*inputs)
