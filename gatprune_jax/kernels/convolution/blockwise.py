"""Convolutions that compute a block of neighbouring outputs as additional output channels.

XLA's convolution on CPU is a matrix product with as many rows as there are output channels. The
product is slow if there are few output channels, and it also multiplies by the zeros of a dilated
input. A block of n outputs gives n times as many channels, and needs no zeros of a dilated input.
"""

import functools
import math

import jax

from gatprune_jax.kernels.convolution.grouped import convolve_groups
from gatprune_jax.kernels.convolution.window import (
  Window,
  canonical_layout,
  convolve,
  positions,
  window_matrix,
)

# The most output channels and the most outputs of a block. Trials of one to eight outputs chose
# these values, on a core with 16 float32 lanes, where 48 channels fill three registers.
_CHANNELS = 48
_LONGEST = 8


def block_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` in blocks; see `convolve_blocks`.

  Grouped convolutions are computed by `convolve_groups`, and convolutions of dilated inputs by XLA.

  Args:
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  grouped = functools.partial(convolve_groups, convolve_blocks)
  return canonical_layout(convolve_blocks, lhs, rhs, params, grouped)


def convolve_blocks(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes a convolution in blocks: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`.

  Along one axis, let s be the stride, l and d the dilations of the input and of the kernel, c the
  padding before the first input, and n the number of outputs in a block, where l divides s n. Then
  output j of block m is

    out[b, n m + j, o] = sum_{u, i} x[b, s n / l m + u, i] M[u, i, j, o]

  with M from `window_matrix`. This is a convolution with stride s n / l, of an input that is not
  dilated, to n O channels. M is zero where an output does not read an input that its block reads.

  Args:
    window: s, l, d and c of every axis.
    x: input `[B, p..., I]`.
    w: kernel `[k..., I, O]`.
  """
  sizes = positions(window, x, w)
  block = _block(window, w, sizes)
  if all(length == 1 for length in block):
    return convolve(window, x, w)
  reads, strides, padding = [], [], []
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    reach = stride * (block[axis] - 1) + d * (w.shape[axis] - 1)
    first, last = -(low // dilation), (reach - low) // dilation  # inputs that the first block reads
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
  """Returns how many outputs of each axis form a block, given the number of outputs `sizes`."""
  ones = (1,) * len(sizes)
  if any(dilation > 1 for dilation in window.lhs_dilation):
    return window.lhs_dilation if window.strides == ones else ones
  longest = min(_LONGEST, *sizes[-1:], _CHANNELS // max(1, w.shape[-1]))
  overlap = bool(sizes) and w.shape[-3] > window.strides[-1]
  if longest < 2 or not overlap or window.rhs_dilation[-1] > 1:
    return ones
  # Blocks extend along the last axis, where their outputs already have the order of the result.
  return (*ones[1:], 1 << longest.bit_length() - 1)


def _neighbours(out: jax.Array, block: tuple[int, ...], sizes: tuple[int, ...]) -> jax.Array:
  """Rearranges outputs from blocks `[B, m..., (j... O)]` to positions `[B, q..., O]`."""
  batch, *num_blocks, channels = out.shape
  num_axes, channels = len(block), channels // math.prod(block)
  out = out.reshape(batch, *num_blocks, *block, channels)
  pairs = (axis for i in range(1, 1 + num_axes) for axis in (i, i + num_axes))
  out = out.transpose(0, *pairs, 1 + 2 * num_axes)
  lengths = (m * n for m, n in zip(num_blocks, block, strict=True))
  return out.reshape(batch, *lengths, channels)[:, *(slice(size) for size in sizes)]
