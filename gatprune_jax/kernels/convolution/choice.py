"""The choice of the implementation of a convolution that is fastest on the backend."""

from collections.abc import Callable

import jax

from gatprune_jax.kernels.convolution.blockwise import block_convolution
from gatprune_jax.kernels.convolution.canonical import canonical_convolution
from gatprune_jax.kernels.convolution.grouped import group_convolution
from gatprune_jax.kernels.convolution.merged import merged_convolution

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


def scoring_convolution() -> Callable[..., jax.Array] | None:
  """Returns the convolution for forward passes under masks; None stands for XLA's convolution."""
  return block_convolution if jax.default_backend() == "cpu" else None


def network_convolution() -> Callable[..., jax.Array] | None:
  """Returns the convolution for networks that are trained or judged one after another.

  None stands for XLA's convolution.
  """
  return group_convolution if jax.default_backend() == "cpu" else None
