"""Convolutions in the form that XLA's CPU backend runs fast in loops and under vmap.

It is slow at a convolution vmapped over its inputs and weights, which becomes a grouped one, and at
a gradient inside a loop, whose layout no fast kernel takes.
"""

from collections.abc import Callable
import functools
import math

import jax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp

from gatprune_jax.kernels.convolution.blockwise import convolve_blocks
from gatprune_jax.kernels.convolution.kernel_gradient import kernel_gradient
from gatprune_jax.kernels.convolution.window import Window, canonical_layout

_MOST_PLACES = 49  # of a kernel, each a slice to compile


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
  do, and runs one convolution after the other where both do. Each is computed by
  `convolve_blocks`. Reverse-mode gradients of any order; no forward mode. Grouped convolutions and
  dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  return canonical_layout(_convolve, lhs, rhs, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """C(x, w): `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`."""
  return _batchable(window)(x, w)


def _forward(window: Window, x: jax.Array, w: jax.Array):
  return _convolve(window, x, w), (x, w)


def _backward(window: Window, operands, g: jax.Array):
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


def _batchable(window: Window) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """C of one window with its rule for vmap, which holds under further vmaps."""
  one = custom_vmap(functools.partial(convolve_blocks, window))

  @one.def_vmap
  def rule(size, batched, x, w):
    if all(batched):
      return jax.lax.map(lambda operands: one(*operands), (x, w)), True
    if batched[0]:
      out = one(x.reshape(-1, *x.shape[2:]), w)
      return out.reshape(size, -1, *out.shape[1:]), True
    w = jnp.moveaxis(w, 0, -2)
    out = one(x, w.reshape(*w.shape[:-2], -1))
    return jnp.moveaxis(out.reshape(*out.shape[:-1], size, -1), -2, 0), True

  return one


def _dilated(size: int, dilation: int) -> int:
  return max(0, dilation * (size - 1) + 1)
