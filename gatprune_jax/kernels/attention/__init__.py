"""Graph attention over complete bipartite sets of edges, without a feature vector per edge."""

from gatprune_jax.kernels.attention.edges import EDGE_FEATURES, FLAGS, SELF, Bipartite, flags
from gatprune_jax.kernels.attention.layout import Layout, attend, lay_out
from gatprune_jax.kernels.attention.softmax import SLOPE

__all__ = [
  "EDGE_FEATURES",
  "FLAGS",
  "SELF",
  "SLOPE",
  "Bipartite",
  "Layout",
  "attend",
  "flags",
  "lay_out",
]
