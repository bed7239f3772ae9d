"""Convolutions of candidates with weights of their own, in the form that accelerators run fast.

vmap over inputs and kernels makes a grouped convolution, one group a candidate. Its gradient with
respect to the kernel is slow where groups are narrow: cuDNN evaluates it by Fourier transforms.
"""

import functools
from typing import Any

import jax
from jax.custom_batching import custom_vmap
import jax.numpy as jnp

from gatprune_jax.evaluation.window import Window, convolve, is_plain, laid_out

_WIDTH = 64  # channels of a group; of 32, 64 and 128 the fastest on an H100


def merged_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)`, kernel gradients fast under vmap.

  Candidates are merged until the wider side has 64 channels: m of them, side by side, have one
  kernel gradient of m I inputs and m O outputs,

    dL/dW[k, (c, i), (d, o)] = sum_p x_c[p + k, i] g_d[p, o]

  of which the blocks c = d are theirs. Nothing of one candidate enters another's, not even NaN.

  First derivatives in reverse mode only. Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  if not is_plain(params):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  return laid_out(_convolve, lhs, rhs, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  return convolve(window, x, w)


def _forward(window: Window, x: jax.Array, w: jax.Array):
  return _convolve(window, x, w), (x, w)


def _backward(window: Window, operands: tuple[jax.Array, jax.Array], g: jax.Array):
  x, w = operands
  (dx,) = jax.vjp(lambda x: convolve(window, x, w), x)[1](g)
  return dx, _kernel_gradient(window, w)(x, g)


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(window: Window, kernel: Any) -> Any:
  """`(x, g) -> dL/dw` for kernels of one shape and dtype, with its rule for vmap."""

  def of_shape(shape, x, g):
    (dw,) = jax.vjp(lambda w: convolve(window, x, w), jnp.zeros(shape, kernel.dtype))[1](g)
    return dw

  own_shape = functools.partial(of_shape, kernel.shape)
  gradient = custom_vmap(own_shape)
  *size, num_in, num_out = kernel.shape

  @gradient.def_vmap
  def rule(num, batched, x, g):
    if not all(batched):  # vmap folds the batched one into the channels, which makes no groups
      return jax.vmap(own_shape, [0 if b else None for b in batched])(x, g), True
    merged = max(1, min(num, _WIDTH // max(num_in, num_out)))
    x, g = (_merge(operand, merged) for operand in (x, g))
    whole = jax.vmap(functools.partial(of_shape, (*size, merged * num_in, merged * num_out)))(x, g)
    whole = whole.reshape(-1, *size, merged, num_in, merged, num_out)
    own = jnp.diagonal(whole, axis1=-4, axis2=-2)  # [sets, k..., I, O, m]
    own = jnp.moveaxis(own, -1, 1)
    return own.reshape(-1, *own.shape[2:])[:num], True

  return gradient


def _merge(operand: jax.Array, merged: int) -> jax.Array:
  """`[C, B, p..., I]` -> `[sets, B, p..., m I]`, the last set filled up with zeros."""
  num_sets = -(-len(operand) // merged)
  missing = num_sets * merged - len(operand)
  operand = jnp.pad(operand, ((0, missing), *[(0, 0)] * (operand.ndim - 1)))
  operand = operand.reshape(num_sets, merged, *operand.shape[1:])
  return jnp.moveaxis(operand, 1, -2).reshape(num_sets, *operand.shape[2:-1], -1)
