"""Several implementations of `conv_general_dilated`, each fast where the others are slow."""

from gatprune_jax.kernels.convolution.blockwise import block_convolution
from gatprune_jax.kernels.convolution.canonical import canonical_convolution
from gatprune_jax.kernels.convolution.choice import (
  candidate_convolution,
  candidate_width,
  network_convolution,
  scoring_convolution,
)
from gatprune_jax.kernels.convolution.grouped import group_convolution
from gatprune_jax.kernels.convolution.merged import merged_convolution

__all__ = [
  "block_convolution",
  "candidate_convolution",
  "candidate_width",
  "canonical_convolution",
  "group_convolution",
  "merged_convolution",
  "network_convolution",
  "scoring_convolution",
]
