"""Convolutions whose outputs are computed in blocks of neighbours, each as so many more channels.

XLA's convolution on CPU is a matrix product with as many rows as there are output channels. It is
slow at few, and multiplies by the zeros of a dilated input.
"""

import math

import jax

from gatprune_jax.kernels.convolution.window import (
  Window,
  canonical_layout,
  convolve,
  positions,
  window_matrix,
)

# Output channels of a block, and its length, at most. Trials of one to eight outputs chose them, on
# a core of 16 float32 lanes: three registers of channels.
_CHANNELS = 48
_LONGEST = 8


def block_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` in blocks, see `convolve_blocks`.

  Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  return canonical_layout(convolve_blocks, lhs, rhs, params)


def convolve_blocks(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """C(x, w): `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`.

  Along one axis, with stride s, dilations l of the input and d of the kernel, padding c below and
  blocks of n outputs, l a divisor of s n, output j of block m is

    out[b, n m + j, o] = sum_{u, i} x[b, s n / l m + u, i] M[u, i, j, o]

  with M from `window_matrix`: a convolution with stride s n / l, of an input that is not dilated,
  to n O channels. M has zeros where an output does not read what its block reads.
  """
  sizes = positions(window, x, w)
  block = _block(window, w, sizes)
  if all(length == 1 for length in block):
    return convolve(window, x, w)
  reads, strides, padding = [], [], []
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    reach = stride * (block[axis] - 1) + d * (w.shape[axis] - 1)
    first, last = -(low // dilation), (reach - low) // dilation  # that the first block reads
    step = stride * block[axis] // dilation
    num_blocks = -(-sizes[axis] // block[axis])
    reads.append(range(first, last + 1))
    strides.append(step)
    padding.append((-first, step * (num_blocks - 1) + last + 1 - x.shape[1 + axis]))
  matrix = window_matrix(window, w, reads, [range(length) for length in block])
  matrix = matrix.reshape(*matrix.shape[: 1 + len(block)], -1)
  ones = (1,) * len(block)
  of_blocks = window._replace(
    strides=tuple(strides), padding=tuple(padding), lhs_dilation=ones, rhs_dilation=ones
  )
  return _neighbours(convolve(of_blocks, x, matrix), block, sizes)


def _block(window: Window, w: jax.Array, sizes: tuple[int, ...]) -> tuple[int, ...]:
  """How many outputs of each axis are computed at once, of so many."""
  ones = (1,) * len(sizes)
  if any(dilation > 1 for dilation in window.lhs_dilation):
    return window.lhs_dilation if window.strides == ones else ones
  longest = min(_LONGEST, *sizes[-1:], _CHANNELS // max(1, w.shape[-1]))
  overlap = bool(sizes) and w.shape[-3] > window.strides[-1]
  if longest < 2 or not overlap or window.rhs_dilation[-1] > 1:
    return ones
  # Along the last axis, where a block's outputs lie as they do in the result.
  return (*ones[1:], 1 << longest.bit_length() - 1)


def _neighbours(out: jax.Array, block: tuple[int, ...], sizes: tuple[int, ...]) -> jax.Array:
  """Outputs in blocks, `[B, m..., (j... O)]`, beside each other, `[B, q..., O]`."""
  batch, *num_blocks, channels = out.shape
  num_axes, channels = len(block), channels // math.prod(block)
  out = out.reshape(batch, *num_blocks, *block, channels)
  pairs = (axis for i in range(1, 1 + num_axes) for axis in (i, i + num_axes))
  out = out.transpose(0, *pairs, 1 + 2 * num_axes)
  lengths = (m * n for m, n in zip(num_blocks, block, strict=True))
  return out.reshape(batch, *lengths, channels)[:, *(slice(size) for size in sizes)]
