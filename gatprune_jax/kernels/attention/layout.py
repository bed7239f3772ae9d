"""The choice between two memory layouts of a graph's edges, and attention on either layout."""

from collections.abc import Sequence

import jax

from gatprune_jax.kernels.attention import tile_programs
from gatprune_jax.kernels.attention.blocks import Block, stack_blocks, tiling_for
from gatprune_jax.kernels.attention.edges import Bipartite
from gatprune_jax.kernels.attention.on_blocks import attend_blocks
from gatprune_jax.kernels.attention.on_tiles import attend_tiles
from gatprune_jax.kernels.attention.tiles import Tiles, tile_sets

Layout = tuple[Block, ...] | Tiles


def lay_out(sets: Sequence[Bipartite], num_nodes: int) -> Layout:
  """Lays edges out as tiles where the GPU kernels for tiles run, and as stacked blocks elsewhere.

  The function runs on the host and is called once for each graph. Pass the result to a compiled
  function as an argument, not as a constant: XLA evaluates expressions that depend on constants
  alone at compile time, which takes seconds, mostly for index arrays.

  Args:
    sets: the edges.
    num_nodes: the number of nodes n; node ids are 0 to n - 1.
  """
  if tile_programs.run_here():
    return tile_sets(sets, num_nodes)
  return stack_blocks(sets, tiling_for(jax.default_backend()))


def attend(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, edges: Layout
) -> jax.Array:
  """Computes the softmax-weighted mean of x over the edges that each node receives.

  The edges of a node include one edge from the node to itself.

  Args:
    send: the term that each node adds to the logits of the edges that it sends, `[H, n]`, for H
      heads and n nodes.
    receive: the term that each node adds to the logits of the edges that it receives, `[H, n]`.
    x: the values to average, `[H, n, D]`.
    edge: the weight of each edge feature in the logit, `[E, H]`, in the order of `EDGE_FEATURES`.
    edges: the result of `lay_out`. Edges are not differentiated.

  Returns:
    The means, `[H, n, D]`.
  """
  on_layout = attend_tiles if isinstance(edges, Tiles) else attend_blocks
  return on_layout(send, receive, x, edge, edges)
