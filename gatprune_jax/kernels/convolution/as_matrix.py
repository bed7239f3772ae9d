"""Convolutions over few positions as matrix products.

On CPU, XLA's convolutions over few positions spend their time on the borders of the input.
"""

import jax

from gatprune_jax.kernels.convolution.window import (
  Window,
  canonical_layout,
  positions,
  window_matrix,
)


def matrix_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` as one matrix product.

  The matrix M, from `window_matrix`, maps all input positions p to all output positions q:

    out[b, q, o] = sum_{p, i} in[b, p, i] M[p, i, q, o]

  The share of zeros in M grows with the number of positions, but nothing is padded or gathered.

  Grouped convolutions and convolutions of dilated inputs are computed by XLA.

  Args:
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  return canonical_layout(_multiply, lhs, rhs, params)


def _multiply(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes a convolution by M: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`."""
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
