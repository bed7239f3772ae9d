"""Convolutions over few positions as matrix products: on CPU, XLA's spend their time on borders."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.evaluation.window import Window, computed_by


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
  return computed_by(_multiply, lhs, rhs, params)


def _multiply(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
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
