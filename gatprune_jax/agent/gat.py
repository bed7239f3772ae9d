"""Graph attention (Velickovic et al. 2018, arXiv 1710.10903) with edge features and several heads.

For receiver r with incoming edges e: s -> r, head h:

  logit_eh = LeakyReLU(a_send_h . W_h x_s + a_recv_h . W_h x_r + a_edge_h . f_e)
  y_rh     = sum_e softmax_e(logit_eh) W_h x_s

f_e holds the norm of the kernel between two channels and flags that a block's edges share.
`attend_blocks` evaluates it on complete bipartite blocks, without a feature vector per edge;
`attend_edges` is the reference, `jraph.GAT` on an edge list. They agree to rounding.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatprune_jax.kernels.attention.blocks import EDGE_FEATURES, SELF, Block
from gatprune_jax.kernels.attention.on_blocks import attend_slices
from gatprune_jax.kernels.attention.on_tiles import attend_tiles
from gatprune_jax.kernels.attention.softmax import SLOPE
from gatprune_jax.kernels.attention.tiles import Tiles, as_block


class Attention(NamedTuple):
  """The parameters of one layer: H heads of D features each."""

  query: jax.Array  # [F, H, D], W
  send: jax.Array  # [H, D], a_send
  receive: jax.Array  # [H, D], a_recv
  edge: jax.Array  # [E, H], a_edge


def attend_blocks(
  params: Attention, nodes: jax.Array, blocks: Sequence[Block] | Tiles
) -> jax.Array:
  """One attention layer on blocks and an edge from every node to itself.

  Nothing of an edge's size outlives its slice of a block, in the backward pass either: a slice's
  logits are computed again there. On tiles, nothing of an edge's size is written at all.

  Args:
    params: the layer's parameters.
    nodes: `[n, F]`.
    blocks: bipartite blocks over the n nodes, or tiles for a GPU; pass them as arguments of the
      compiled function, since XLA evaluates what depends on constants alone, index arrays above
      all, for seconds.

  Returns:
    `[n, H * D]`, heads side by side.
  """
  x = jnp.einsum("nf,fhd->hnd", nodes, params.query)
  send = jnp.einsum("hnd,hd->hn", x, params.send)
  receive = jnp.einsum("hnd,hd->hn", x, params.receive)
  attend = attend_tiles if isinstance(blocks, Tiles) else attend_slices
  means = attend(send, receive, x, params.edge, blocks)
  return means.transpose(1, 0, 2).reshape(nodes.shape[0], -1)


def attend_edges(params: Attention, graph: jraph.GraphsTuple) -> jax.Array:
  """The same layer by `jraph.GAT`; the graph's edges include those to self. `[n, H * D]`."""

  def logits(sent, received, edges):
    raw = (sent * params.send).sum(-1) + (received * params.receive).sum(-1) + edges @ params.edge
    return jax.nn.leaky_relu(raw, SLOPE)[..., None]

  layer = jraph.GAT(
    attention_query_fn=lambda nodes: jnp.einsum("nf,fhd->nhd", nodes, params.query),
    attention_logit_fn=logits,
    node_update_fn=lambda nodes: nodes.reshape(nodes.shape[0], -1),
  )
  return layer(graph).nodes


def to_graphs_tuple(nodes: jax.Array, blocks: Sequence[Block] | Tiles) -> jraph.GraphsTuple:
  """The graph in its public form: every edge of every block, then one from each node to itself."""
  num = len(nodes)
  own = np.zeros((num, len(EDGE_FEATURES)), np.float32)
  own[:, SELF] = 1.0
  senders, receivers, edges = [], [], []
  for block in [as_block(blocks)] if isinstance(blocks, Tiles) else blocks:
    shape = (*block.senders.shape, block.receivers.shape[-1])
    sent = np.broadcast_to(block.senders[..., None], shape)
    received = np.broadcast_to(block.receivers[..., None, :], shape)
    shared = np.broadcast_to(block.flags[..., None, None, :], (*shape, block.flags.shape[-1]))
    norms = np.zeros(shape, np.float32) if block.norms is None else block.norms
    real = (sent < num) & (received < num)
    senders.append(sent[real])
    receivers.append(received[real])
    edges.append(np.concatenate([norms[real][:, None], shared[real]], axis=1))
  senders = np.concatenate([*senders, np.arange(num)])
  return jraph.GraphsTuple(
    nodes=nodes,
    edges=np.concatenate([*edges, own]),
    senders=senders,
    receivers=np.concatenate([*receivers, np.arange(num)]),
    globals=None,
    n_node=np.array([num]),
    n_edge=np.array([len(senders)]),
  )


class GraphAttention(nn.Module):
  """A learned attention layer on blocks: nodes `[n, F]` to `[n, heads * features]`.

  Attributes:
    heads: H.
    features: D, per head.
  """

  heads: int
  features: int

  @nn.compact
  def __call__(self, nodes: jax.Array, blocks: Sequence[Block] | Tiles) -> jax.Array:
    """Applies `attend_blocks` with learned parameters."""
    glorot = nn.initializers.glorot_uniform(in_axis=0, out_axis=(1, 2))
    small = nn.initializers.normal(self.features**-0.5)
    shape = (self.heads, self.features)
    params = Attention(
      query=self.param("query", glorot, (nodes.shape[-1], *shape)),
      send=self.param("send", small, shape),
      receive=self.param("receive", small, shape),
      edge=self.param("edge", nn.initializers.normal(0.1), (len(EDGE_FEATURES), self.heads)),
    )
    return attend_blocks(params, nodes, blocks)
