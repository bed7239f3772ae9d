"""The parameters of a convolution, and functions for operands in one canonical layout."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# How much larger than its kernel the matrix of a convolution may be. For a kernel of 3x3 and an
# input of 2x4 positions it is 7 times as large.
_LARGEST_MATRIX = 8


class Window(NamedTuple):
  """Parameters of `conv_general_dilated`, except those of layout and groups.

  They describe how the window of a kernel moves over an input `[B, p..., I]`.
  """

  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  lhs_dilation: tuple[int, ...]
  rhs_dilation: tuple[int, ...]
  precision: Any
  preferred_element_type: Any


def canonical_layout(
  fn: Callable[[Window, jax.Array, jax.Array], jax.Array],
  lhs: jax.Array,
  rhs: jax.Array,
  params: Mapping[str, Any],
  grouped: Callable[[Window, int, jax.Array, jax.Array], jax.Array] | None = None,
) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` by `fn(window, x, w)`, in any layout.

  Convolutions with groups of the batch and convolutions of dilated inputs are computed by XLA.

  Args:
    fn: computes the convolution of x `[B, p..., I]` and w `[k..., I, O]`, with the result
      `[B, q..., O]`.
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    params: parameters of the primitive `conv_general_dilated`.
    grouped: computes the convolution of x `[B, p..., I]` and w `[k..., I / G, O]` in G groups of
      channels, called as `grouped(window, G, x, w)`; None: XLA computes it.
  """
  groups = params["feature_group_count"]
  if (
    (groups > 1 and grouped is None)
    or params["batch_group_count"] > 1
    or any(dilation != 1 for dilation in params["lhs_dilation"])
  ):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  dims = params["dimension_numbers"]
  batch, channels, *space = dims.lhs_spec
  x = jnp.transpose(lhs, (batch, *space, channels))
  channels_out, channels_in, *space = dims.rhs_spec
  w = jnp.transpose(rhs, (*space, channels_in, channels_out))
  window = Window(
    tuple(params["window_strides"]),
    tuple(map(tuple, params["padding"])),
    tuple(params["lhs_dilation"]),
    tuple(params["rhs_dilation"]),
    params["precision"],
    params["preferred_element_type"],
  )
  batch, channels, *space = dims.out_spec
  out = fn(window, x, w) if groups == 1 else grouped(window, groups, x, w)
  return jnp.transpose(out, np.argsort((batch, *space, channels)))


def convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes a convolution: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`.

  XLA computes it, unless the kernel has more positions than the input. There XLA exchanges both,
  and its CPU backend has no fast implementation of the result. The convolution is a product with
  M, from `window_matrix`, for all positions:

    out[b, q, o] = sum_{p, i} x[b, p, i] M[p, i, q, o]

  Args:
    window: parameters of the convolution.
    x: input `[B, p..., I]`.
    w: kernel `[k..., I, O]`.
  """
  num_axes, given, sizes = x.ndim - 2, x.shape[1:-1], positions(window, x, w)
  in_kernel, in_matrix = math.prod(w.shape[:-2]), math.prod(given) * math.prod(sizes)
  if math.prod(given) < in_kernel and in_matrix <= _LARGEST_MATRIX * in_kernel:
    matrix = window_matrix(window, w, list(map(range, given)), list(map(range, sizes)))
    return jax.lax.dot_general(
      x,
      matrix,
      ((range(1, 2 + num_axes), range(1 + num_axes)), ((), ())),
      precision=window.precision,
      preferred_element_type=window.preferred_element_type,
    )
  return convolve_by_xla(window, x, w)


def convolve_by_xla(window: Window, x: jax.Array, w: jax.Array, groups: int = 1) -> jax.Array:
  """Computes a convolution in G groups by XLA: `[B, p..., I]`, `[k..., I/G, O]` -> `[B, q..., O]`.

  Where padding is negative, x is cropped before the convolution, because XLA's CPU backend may read
  memory beyond x (https://github.com/openxla/xla/issues/48713).

  Args:
    window: parameters of the convolution.
    x: input.
    w: kernel.
    groups: G.
  """
  num_axes = x.ndim - 2
  if any(edge < 0 for edges in window.padding for edge in edges):
    x, window = _cropped(window, x)
  space = tuple(range(1, 1 + num_axes))
  dims = jax.lax.ConvDimensionNumbers(
    (0, 1 + num_axes, *space),
    (1 + num_axes, num_axes, *range(num_axes)),
    (0, 1 + num_axes, *space),
  )
  return jax.lax.conv_general_dilated(
    x, w, *window[:4], dims, groups, precision=window.precision,
    preferred_element_type=window.preferred_element_type,
  )  # fmt: skip


def _cropped(window: Window, x: jax.Array) -> tuple[jax.Array, Window]:
  """Returns x dilated and cropped, and a window for this x without negative padding."""
  edges = [
    (min(0, low), min(0, high), dilation - 1)
    for (low, high), dilation in zip(window.padding, window.lhs_dilation, strict=True)
  ]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
  padding = tuple((max(0, low), max(0, high)) for low, high in window.padding)
  return x, window._replace(padding=padding, lhs_dilation=(1,) * len(padding))


def positions(window: Window, x: jax.Array, w: jax.Array) -> tuple[int, ...]:
  """Returns how many positions q the result has on each axis.

  Args:
    window: parameters of the convolution.
    x: input `[B, p..., I]`.
    w: kernel `[k..., I, O]`.
  """
  return tuple(
    max(0, (dilated(size, dilation) + low + high - dilated(width, d)) // stride + 1)
    for size, width, stride, (low, high), dilation, d in zip(
      x.shape[1:-1], w.shape[:-2], *window[:4], strict=True
    )
  )


def dilated(size: int, dilation: int) -> int:
  """Returns the size of an axis after dilation."""
  return max(0, dilation * (size - 1) + 1)


def window_matrix(
  window: Window, w: jax.Array, inputs: Sequence[range], outputs: Sequence[range]
) -> jax.Array:
  """Returns the matrix that maps inputs at given positions to outputs at given positions.

  Along one axis, with stride s, dilations l of the input and d of the kernel, and padding c before
  the first input,

    M[p, i, q, o] = w[k, i, o] with l p = s q + d k - c, and 0 where the kernel has no such k

  Args:
    window: s, l, d and c of every axis.
    w: kernel `[k..., I, O]`.
    inputs: input positions p of every axis.
    outputs: output positions q of every axis.

  Returns:
    M, `[p..., I, q..., O]`.
  """
  size, num_axes = w.shape[:-2], w.ndim - 2
  place, inside = 0, True  # [p..., q...]: k, counted over all axes, and whether there is one
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    p, q = np.ix_(inputs[axis], outputs[axis])
    k, rest = np.divmod(dilation * p - stride * q + low, d)
    shape = [1] * (2 * num_axes)
    shape[axis], shape[num_axes + axis] = k.shape
    inside = inside & ((rest == 0) & (k >= 0) & (k < size[axis])).reshape(shape)
    place = place * size[axis] + k.reshape(shape)
  kernel = w.reshape(-1, *w.shape[-2:])
  zero = jnp.zeros((1, *kernel.shape[1:]), w.dtype)
  matrix = jnp.concatenate([kernel, zero])[np.where(inside, place, len(kernel))]
  axes = range(2 * num_axes)
  return matrix.transpose(*axes[:num_axes], 2 * num_axes, *axes[num_axes:], 2 * num_axes + 1)
