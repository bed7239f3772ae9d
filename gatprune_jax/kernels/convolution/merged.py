"""Convolutions of candidates with their own weights, in the form that accelerators run fast.

vmap over inputs and kernels makes a grouped convolution with one group for each candidate. vmap of
the kernel gradient of one candidate makes a convolution whose window is as large as the images.
cuDNN evaluates such a convolution by Fourier transforms, which is slow.
"""

from collections.abc import Callable
import functools

import jax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp

from gatprune_jax.kernels.convolution.window import Window, canonical_layout, convolve

_WIDTH = 64  # most input or output channels of a set of merged candidates


def merged_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` with kernel gradients fast under vmap.

  Candidates are merged into sets until the wider side of a set's kernel has 64 channels. In a set,
  m candidates side by side have one kernel gradient with m I inputs and m O outputs,

    dL/dW[k, (c, i), (d, o)] = sum_p x_c[p + k, i] g_d[p, o]

  The blocks with c = d are the gradients of the candidates, and the other blocks are discarded.
  Therefore no values of one candidate, not even NaN, enter the gradient of another candidate.

  Only first derivatives in reverse mode are supported. Grouped convolutions and convolutions of
  dilated inputs are computed by XLA.

  Args:
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  return canonical_layout(_convolve, lhs, rhs, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  return convolve(window, x, w)


def _forward(window: Window, x: jax.Array, w: jax.Array):
  return _convolve(window, x, w), (x, w)


def _backward(window: Window, operands: tuple[jax.Array, jax.Array], g: jax.Array):
  return _gradients(window)(*operands, g)


_convolve.defvjp(_forward, _backward)


def _gradients(window: Window) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns the function `(x, w, g) -> (dL/dx, dL/dw)` with a rule for vmap.

  The rule differentiates a grouped convolution, so that XLA recognises the results as gradients of
  a convolution. vmap of the gradients of one candidate would make other convolutions instead, with
  windows as large as the images.
  """

  @custom_vmap
  def gradients(x, w, g):
    return jax.vjp(functools.partial(convolve, window), x, w)[1](g)

  @gradients.def_vmap
  def rule(num, batched, x, w, g):
    xs, w, g = (
      operand if b else jnp.repeat(operand[None], num, axis=0)
      for b, operand in zip(batched, (x, w, g), strict=True)
    )
    side_by_side = jax.vmap(functools.partial(convolve, window))
    (dx,) = jax.vjp(lambda xs: side_by_side(xs, w), xs)[1](g)
    dw = _of_sets(window, xs, w, g) if batched[0] else _of_same_images(window, x, w, g)
    return (dx, dw), (True, True)

  return gradients


def _of_same_images(window: Window, x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
  """Computes dL/dw `[C, k..., I, O]` of C candidates that share x.

  The gradient is the kernel gradient of one convolution to C O channels.

  Args:
    window: window of the convolution.
    x: shared input `[B, p..., I]`.
    w: kernels `[C, k..., I, O]`, of which only shape and dtype are used.
    g: dL/dout `[C, B, q..., O]`.
  """
  *size, num_in, num_out = w.shape[1:]
  zeros = jnp.zeros((*size, num_in, len(w) * num_out), w.dtype)
  (dw,) = jax.vjp(lambda w: convolve(window, x, w), zeros)[1](_merge(g, len(w))[0])
  return jnp.moveaxis(dw.reshape(*size, num_in, len(w), num_out), -2, 0)


def _of_sets(window: Window, x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
  """Computes dL/dw `[C, k..., I, O]` of C candidates merged into sets.

  Args:
    window: window of the convolution.
    x: inputs `[C, B, p..., I]`.
    w: kernels `[C, k..., I, O]`, of which only shape and dtype are used.
    g: dL/dout `[C, B, q..., O]`.
  """
  *size, num_in, num_out = w.shape[1:]
  merged = max(1, min(len(w), _WIDTH // max(num_in, num_out)))
  x, g = _merge(x, merged), _merge(g, merged)
  zeros = jnp.zeros((len(x), *size, merged * num_in, merged * num_out), w.dtype)
  (dw,) = jax.vjp(lambda w: jax.vmap(functools.partial(convolve, window))(x, w), zeros)[1](g)
  dw = dw.reshape(-1, *size, merged, num_in, merged, num_out)
  dw = jnp.moveaxis(jnp.diagonal(dw, axis1=-4, axis2=-2), -1, 1)  # [sets, m, k..., I, O]
  return dw.reshape(-1, *dw.shape[2:])[: len(w)]


def _merge(operand: jax.Array, merged: int) -> jax.Array:
  """Merges `[C, B, p..., I]` to `[sets, B, p..., m I]`; zeros fill up the last set."""
  num_sets = -(-len(operand) // merged)
  missing = num_sets * merged - len(operand)
  operand = jnp.pad(operand, ((0, missing), *[(0, 0)] * (operand.ndim - 1)))
  operand = operand.reshape(num_sets, merged, *operand.shape[1:])
  return jnp.moveaxis(operand, 1, -2).reshape(num_sets, *operand.shape[2:-1], -1)
