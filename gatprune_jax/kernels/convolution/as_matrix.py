"""Convolutions over few positions as matrix products: on CPU, XLA's spend their time on borders."""

import jax

from gatprune_jax.kernels.convolution.window import (
  Window,
  canonical_layout,
  positions,
  window_matrix,
)


def matrix_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` as one matrix product.

  A matrix takes all input positions p to all output positions q. It holds more zeros the more
  positions there are, but nothing is padded or gathered:

    out[b, q, o] = sum_{p, i} in[b, p, i] M[p, i, q, o]

  with M from `window_matrix`.

  Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  return canonical_layout(_multiply, lhs, rhs, params)


def _multiply(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """C(x, w) by the matrix M."""
  sizes = x.shape[1:-1], positions(window, x, w)
  matrix = window_matrix(window, w, *([range(size) for size in axes] for axes in sizes))
  num_axes = w.ndim - 2
  return jax.lax.dot_general(
    x,
    matrix,
    ((range(1, 2 + num_axes), range(1 + num_axes)), ((), ())),
    precision=window.precision,
    preferred_element_type=window.preferred_element_type,
  )
