"""Which form of a convolution the backend runs fast."""

from collections.abc import Callable
import math

import jax

from gatprune_jax.kernels.convolution.as_matrix import matrix_convolution
from gatprune_jax.kernels.convolution.blockwise import block_convolution
from gatprune_jax.kernels.convolution.canonical import canonical_convolution
from gatprune_jax.kernels.convolution.merged import merged_convolution

_FEW_POSITIONS = 16
_LARGEST_MATRIX = 2**24  # elements, generously counted; a wide network has hundreds of such layers
_LANES = 64  # channels that fill the matrix units of an accelerator


def candidate_convolution() -> Callable[..., jax.Array]:
  """The convolution for candidates with weights of their own."""
  return canonical_convolution if jax.default_backend() == "cpu" else merged_convolution


def candidate_width(width: int) -> int:
  """How many channels of a kind candidates compute of which the widest keeps so many.

  Accelerators are fastest at powers of two up to 64, and at multiples of 64.
  """
  if jax.default_backend() == "cpu" or width == 0:
    return width
  return 1 << (width - 1).bit_length() if width <= _LANES else -(-width // _LANES) * _LANES


def scoring_convolution() -> Callable | None:
  """The convolution for many masks on shared weights; None means XLA's.

  On CPU, images of few positions go through one matrix, where it is small, others in blocks.
  """

  def convolution(lhs, rhs, **params):
    space = [lhs.shape[axis] for axis in params["dimension_numbers"].lhs_spec[2:]]
    positions = math.prod(space)
    if positions <= _FEW_POSITIONS and positions**2 * rhs.size <= _LARGEST_MATRIX:
      return matrix_convolution(lhs, rhs, **params)
    return block_convolution(lhs, rhs, **params)

  return convolution if jax.default_backend() == "cpu" else None
