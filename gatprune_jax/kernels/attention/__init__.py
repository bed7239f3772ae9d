"""Graph attention over complete bipartite sets of edges, without a feature vector per edge."""

from gatprune_jax.kernels.attention.blocks import Bipartite, Block, stack_blocks, tiling_for
from gatprune_jax.kernels.attention.tiles import Tiles, tile_sets

__all__ = [
  "Bipartite",
  "Block",
  "Tiles",
  "stack_blocks",
  "tile_sets",
  "tiling_for",
]
