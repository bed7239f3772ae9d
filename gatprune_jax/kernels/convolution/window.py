"""The parameters of a convolution, and functions for operands in one canonical layout."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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
) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` by `fn(window, x, w)`, in any layout.

  Grouped convolutions and convolutions of dilated inputs are computed by XLA, without `fn`.

  Args:
    fn: computes the convolution of x `[B, p..., I]` and w `[k..., I, O]`, with the result
      `[B, q..., O]`.
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    params: parameters of the primitive `conv_general_dilated`.
  """
  groups = params["feature_group_count"], params["batch_group_count"]
  if groups != (1, 1) or any(dilation != 1 for dilation in params["lhs_dilation"]):
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
  return jnp.transpose(fn(window, x, w), np.argsort((batch, *space, channels)))


def convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes a convolution by XLA: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`.

  Where padding is negative, x is cropped before the convolution, because XLA's CPU backend may read
  memory beyond x (https://github.com/openxla/xla/issues/48713).

  Args:
    window: parameters of the convolution.
    x: input `[B, p..., I]`.
    w: kernel `[k..., I, O]`.
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
    x, w, *window[:4], dims, precision=window.precision,
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
    max(0, (dilation * (size - 1) + low + high - d * (width - 1)) // stride + 1)
    for size, width, stride, (low, high), dilation, d in zip(
      x.shape[1:-1], w.shape[:-2], *window[:4], strict=True
    )
  )


def window_matrix(
  window: Window, w: jax.Array, inputs: Sequence[range], outputs: Sequence[range]
) -> jax.Array:
  """Returns the matrix that maps inputs at given positions to outputs at given positions.

  Along one axis, with stride s, dilations l of the input and d of the kernel, and padding c before
  the first input,

    M[p, i, q, o] = sum_k S[k, p, q] w[k, i, o],  S[k, p, q] = 1 where l p = s q + d k - c

  Args:
    window: s, l, d and c of every axis.
    w: kernel `[k..., I, O]`.
    inputs: input positions p of every axis.
    outputs: output positions q of every axis.

  Returns:
    M, `[p..., I, q..., O]`.
  """
  matrix = w
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    k, p, q = np.ix_(range(w.shape[axis]), inputs[axis], outputs[axis])
    reads = jnp.asarray(dilation * p == stride * q + d * k - low, w.dtype)
    # The product removes the axis of k, and appends axes of p and q at the end.
    matrix = jnp.tensordot(matrix, reads, ((0,), (0,)))
  # Before this transposition the axes are [I, O, p, q, p, q, ...].
  return matrix.transpose(*range(2, matrix.ndim, 2), 0, *range(3, matrix.ndim, 2), 1)
