"""Convolutions in the forms that XLA's CPU backend runs fast.

It is slow in three places: a convolution vmapped over its inputs and weights, which becomes a
grouped one; a gradient inside a loop, whose layout no fast kernel takes; and a convolution over few
positions, which spends its time on the border.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp
import numpy as np

from gatprune_jax.evaluation.kernel_gradient import kernel_gradient

_FEW_POSITIONS = 16
_MOST_PLACES = 49  # of a kernel, each a slice to compile
_LARGEST_MATRIX = 2**24  # elements, generously counted; a wide network has hundreds of such layers


class _Window(NamedTuple):
  """How a window moves over `[B, p..., I]`; the parameters of `conv_general_dilated`."""

  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  lhs_dilation: tuple[int, ...]
  rhs_dilation: tuple[int, ...]
  precision: Any
  preferred_element_type: Any


def canonical_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)`, fast on CPU in loops and under vmap.

  Every convolution, those of the gradients too, is a forward one over operands laid out as
  `[B, p..., I]` and `[k..., I, O]`, to which they are transposed. With g = dL/dout, stride s,
  dilations l of the input and d of the kernel, and C a convolution with

    out = C(x, w; stride s, dilations l, d)

  the gradients are (batch and channels exchanged where marked by T)

    dL/dx = C(g, flip(w)^T; stride l, dilations s, d)
    dL/dw = C(x^T, g^T; stride d, dilations l, s)^T, in two dimensions by `kernel_gradient`

  vmap folds into the batch where the inputs differ only, into the output channels where the weights
  do, and runs one convolution after the other where both do. Reverse-mode gradients of any order;
  no forward mode. Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  if not _is_plain(params):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  return _laid_out(_convolve, lhs, rhs, params)


def matrix_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` as one matrix product.

  A matrix takes all input positions p to all output positions q. It holds more zeros the more
  positions there are, but nothing is padded or gathered:

    out[b, q, o] = sum_{p, i} in[b, p, i] M[p, i, q, o]
    M[p, i, q, o] = sum_k S[k, p, q] rhs[k, i, o]

  with S[k, p, q] = 1 where p = stride q + dilation k - padding.

  Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  if not _is_plain(params):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  return _laid_out(_multiply, lhs, rhs, params)


def candidate_convolution() -> Callable | None:
  """The convolution for candidates with weights of their own; None means XLA's."""
  return canonical_convolution if jax.default_backend() == "cpu" else None


def scoring_convolution() -> Callable | None:
  """The convolution for many masks on shared weights; None means XLA's.

  On CPU, images of few positions go through one matrix, where it is small.
  """

  def convolution(lhs, rhs, **params):
    space = [lhs.shape[axis] for axis in params["dimension_numbers"].lhs_spec[2:]]
    positions = math.prod(space)
    if positions <= _FEW_POSITIONS and positions**2 * rhs.size <= _LARGEST_MATRIX:
      return matrix_convolution(lhs, rhs, **params)
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)

  return convolution if jax.default_backend() == "cpu" else None


def _is_plain(params) -> bool:
  groups = params["feature_group_count"], params["batch_group_count"]
  return groups == (1, 1) and all(dilation == 1 for dilation in params["lhs_dilation"])


def _laid_out(fn, lhs: jax.Array, rhs: jax.Array, params) -> jax.Array:
  """`fn(window, x, w)` on x `[B, p..., I]` and w `[k..., I, O]`, its result laid out as asked."""
  dims = params["dimension_numbers"]
  batch, channels, *space = dims.lhs_spec
  x = jnp.transpose(lhs, (batch, *space, channels))
  channels_out, channels_in, *space = dims.rhs_spec
  w = jnp.transpose(rhs, (*space, channels_in, channels_out))
  window = _Window(
    tuple(params["window_strides"]),
    tuple(map(tuple, params["padding"])),
    tuple(params["lhs_dilation"]),
    tuple(params["rhs_dilation"]),
    params["precision"],
    params["preferred_element_type"],
  )
  batch, channels, *space = dims.out_spec
  return jnp.transpose(fn(window, x, w), np.argsort((batch, *space, channels)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: _Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """C(x, w): `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`."""
  return _batchable(window)(x, w)


def _forward(window: _Window, x: jax.Array, w: jax.Array):
  return _convolve(window, x, w), (x, w)


def _backward(window: _Window, operands, g: jax.Array):
  x, w = operands
  x_padding, w_padding = [], []
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    reach = d * (w.shape[axis] - 1)  # of the window beyond its first position
    x_size, g_size = _dilated(x.shape[1 + axis], dilation), _dilated(g.shape[1 + axis], stride)
    x_padding.append((reach - low, x_size - g_size + low))
    w_padding.append((low, g_size + reach - x_size - low))
  to_x = window._replace(
    strides=window.lhs_dilation, padding=tuple(x_padding), lhs_dilation=window.strides
  )
  to_w = window._replace(
    strides=window.rhs_dilation, padding=tuple(w_padding), rhs_dilation=window.strides
  )
  space = range(w.ndim - 2)
  # g may be of a wider type than the operands: `preferred_element_type`.
  dx = _convolve(to_x, g, jnp.flip(w, space).swapaxes(-1, -2).astype(g.dtype))
  size = w.shape[:-2]
  if window.lhs_dilation == (1, 1) and math.prod(size) <= _MOST_PLACES:
    dw = kernel_gradient(
      x.astype(g.dtype), g, size, window.strides, window.padding, window.rhs_dilation,
      window.precision,
    )  # fmt: skip
  else:
    dw = _convolve(to_w, x.swapaxes(0, -1).astype(g.dtype), jnp.moveaxis(g, 0, -2))
    dw = jnp.moveaxis(dw, 0, -2)
  return dx.astype(x.dtype), dw.astype(w.dtype)


_convolve.defvjp(_forward, _backward)


def _batchable(window: _Window) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """C of one window with its rule for vmap, which holds under further vmaps."""

  @custom_vmap
  def convolve(x, w):
    num_axes = x.ndim - 2
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

  @convolve.def_vmap
  def rule(size, batched, x, w):
    if all(batched):
      return jax.lax.map(lambda operands: convolve(*operands), (x, w)), True
    if batched[0]:
      out = convolve(x.reshape(-1, *x.shape[2:]), w)
      return out.reshape(size, -1, *out.shape[1:]), True
    w = jnp.moveaxis(w, 0, -2)
    out = convolve(x, w.reshape(*w.shape[:-2], -1))
    return jnp.moveaxis(out.reshape(*out.shape[:-1], size, -1), -2, 0), True

  return convolve


def _multiply(window: _Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """C(x, w) by the matrix M, for inputs that are not dilated."""
  num_axes = x.ndim - 2
  matrix = w
  for axis, (stride, (low, high), _, d) in enumerate(zip(*window[:4], strict=True)):
    size, width = x.shape[1 + axis], w.shape[axis]
    positions = (size + low + high - d * (width - 1) - 1) // stride + 1
    k, p, q = np.ogrid[:width, :size, :positions]
    reads = jnp.asarray(p == stride * q + d * k - low, w.dtype)
    matrix = jnp.tensordot(matrix, reads, ((0,), (0,)))  # the offset goes, [..., p, q] come
  # From [I, O, p, q, p, q, ...] to [p..., I, q..., O].
  order = (*range(2, matrix.ndim, 2), 0, *range(3, matrix.ndim, 2), 1)
  return jax.lax.dot_general(
    x,
    matrix.transpose(order),
    ((range(1, 2 + num_axes), range(1 + num_axes)), ((), ())),
    precision=window.precision,
    preferred_element_type=window.preferred_element_type,
  )


def _dilated(size: int, dilation: int) -> int:
  return max(0, dilation * (size - 1) + 1)
