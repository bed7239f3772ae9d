"""How a graph's edges are laid out for the processor, and attention on either layout."""

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
  """Tiles where their kernels run, else stacked blocks; on the host, once for a graph.

  Pass the result to a compiled function as an argument: XLA evaluates what depends on constants
  alone, index arrays above all, for seconds.
  """
  if tile_programs.run_here():
    return tile_sets(sets, num_nodes)
  return stack_blocks(sets, tiling_for(jax.default_backend()))


def attend(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, edges: Layout
) -> jax.Array:
  """The mean of x over the edges of each node, one to itself included, weighted by softmax.

  Args:
    send: what a node adds to the logits of the edges that it sends, `[H, n]`.
    receive: what a node adds to the logits of the edges that it receives, `[H, n]`.
    x: what is averaged, `[H, n, D]`.
    edge: what each feature of an edge adds to the logit, `[E, H]`, in the order of
      `EDGE_FEATURES`.
    edges: from `lay_out`; not differentiated.

  Returns:
    `[H, n, D]`.
  """
  on_layout = attend_tiles if isinstance(edges, Tiles) else attend_blocks
  return on_layout(send, receive, x, edge, edges)
