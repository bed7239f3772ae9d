"""The choice of the implementation of a convolution that is fastest on the backend."""

from collections.abc import Callable
import math

import jax

from gatprune_jax.kernels.convolution.as_matrix import matrix_convolution
from gatprune_jax.kernels.convolution.blockwise import block_convolution
from gatprune_jax.kernels.convolution.canonical import canonical_convolution
from gatprune_jax.kernels.convolution.merged import merged_convolution

_FEW_POSITIONS = 16
# Largest matrix, in elements. `scoring_convolution` counts too many elements, because the count
# includes the kernel's window. The limit exists because a wide network has hundreds of layers with
# a matrix.
_LARGEST_MATRIX = 2**24
_LANES = 64  # channels that fill the matrix units of an accelerator


def candidate_convolution() -> Callable[..., jax.Array]:
  """Returns the convolution for candidate networks that each have their own weights."""
  return canonical_convolution if jax.default_backend() == "cpu" else merged_convolution


def candidate_width(width: int) -> int:
  """Returns how many channels each candidate computes where the widest candidate keeps `width`.

  Candidates compute equally many channels, so that one program runs all of them side by side.
  Accelerators are fastest with powers of two up to 64, and with multiples of 64.
  """
  if jax.default_backend() == "cpu" or width == 0:
    return width
  return 1 << (width - 1).bit_length() if width <= _LANES else -(-width // _LANES) * _LANES


def scoring_convolution() -> Callable | None:
  """Returns the convolution for many masks on shared weights; None stands for XLA's convolution.

  On CPU, inputs of few positions are convolved as one matrix product if the matrix is small. All
  other inputs are convolved in blocks.
  """

  def convolution(lhs, rhs, **params):
    space = [lhs.shape[axis] for axis in params["dimension_numbers"].lhs_spec[2:]]
    positions = math.prod(space)
    if positions <= _FEW_POSITIONS and positions**2 * rhs.size <= _LARGEST_MATRIX:
      return matrix_convolution(lhs, rhs, **params)
    return block_convolution(lhs, rhs, **params)

  return convolution if jax.default_backend() == "cpu" else None
