"""Convolutions in the form that XLA's CPU backend runs fast in loops and under vmap.

XLA's CPU backend is slow in two cases. A convolution under vmap over both inputs and weights
becomes a grouped convolution, for which the backend is slow, as it is for the network's own grouped
convolutions. A gradient of a convolution inside a loop has a layout that no fast kernel of the
backend takes.
"""

from collections.abc import Callable
import functools
import math

import jax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp

from gatprune_jax.kernels.convolution.blockwise import convolve_blocks
from gatprune_jax.kernels.convolution.grouped import convolve_groups
from gatprune_jax.kernels.convolution.kernel_gradient import kernel_gradient
from gatprune_jax.kernels.convolution.window import Window, canonical_layout, dilated

# `kernel_gradient` compiles a slice for every position of the kernel. For a kernel with more
# positions than this number, the gradient is a convolution instead.
_MOST_PLACES = 49


def canonical_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)`, fast on CPU in loops and under vmap.

  All convolutions, including the ones of the gradients, are forward convolutions, with operands
  transposed to the layouts `[B, p..., I]` and `[k..., I, O]`. With g = dL/dout, stride s, dilations
  l of the input and d of the kernel, and C a convolution with

    out = C(x, w; stride s, dilations l, d)

  the gradients are as follows, where T exchanges input and output channels of w, or batch and
  channels of the other arrays:

    dL/dx = C(g, flip(w)^T; stride l, dilations s, d)
    dL/dw = C(x^T, g^T; stride d, dilations l, s)^T

  In two dimensions `kernel_gradient` computes dL/dw, unless the kernel has many positions or the
  input is dilated.

  Where only the inputs differ, vmap folds its axis into the batch. Where only the weights differ,
  vmap folds its axis into the output channels. Where both differ, the convolutions run one after
  another. Every convolution is computed by `convolve_blocks`. Reverse-mode gradients of any order
  are supported, but not forward mode. Grouped convolutions are computed by `convolve_groups`, and
  convolutions of dilated inputs by XLA.

  Args:
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  grouped = functools.partial(convolve_groups, _convolve)
  return canonical_layout(_convolve, lhs, rhs, params, grouped)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes the convolution C: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`."""
  return _batchable(window)(x, w)


def _forward(window: Window, x: jax.Array, w: jax.Array):
  return _convolve(window, x, w), (x, w)


def _backward(window: Window, operands, g: jax.Array):
  x, w = operands
  x_padding, w_padding = [], []
  for axis, (stride, (low, _), dilation, d) in enumerate(zip(*window[:4], strict=True)):
    reach = d * (w.shape[axis] - 1)  # how far the window extends beyond its first position
    x_size, g_size = dilated(x.shape[1 + axis], dilation), dilated(g.shape[1 + axis], stride)
    x_padding.append((reach - low, x_size - g_size + low))
    w_padding.append((low, g_size + reach - x_size - low))
  to_x = window._replace(
    strides=window.lhs_dilation, padding=tuple(x_padding), lhs_dilation=window.strides
  )
  to_w = window._replace(
    strides=window.rhs_dilation, padding=tuple(w_padding), rhs_dilation=window.strides
  )
  space = range(w.ndim - 2)
  # Because of `preferred_element_type`, g may have a wider type than the operands.
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
  """Returns the convolution C with a fixed window and a rule for vmap, which may be nested."""
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
