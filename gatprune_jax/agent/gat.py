"""Graph attention (Velickovic et al. 2018, arXiv 1710.10903) with edge features and several heads.

For receiver r with incoming edges e: s -> r, head h:

  logit_eh = LeakyReLU(a_send_h . W_h x_s + a_recv_h . W_h x_r + a_edge_h . f_e)
  y_rh     = sum_e softmax_e(logit_eh) W_h x_s

`attend_blocks` evaluates it on complete bipartite blocks without a gathered copy of the endpoints
per edge; `attend_edges` is the reference, `jraph.GAT` on an edge list. They agree to rounding.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatprune_jax.agent.features import EDGE_FEATURES, Block


class Attention(NamedTuple):
  """The parameters of one layer: H heads of D features each."""

  query: jax.Array  # [F, H, D], W
  send: jax.Array  # [H, D], a_send
  receive: jax.Array  # [H, D], a_recv
  edge: jax.Array  # [E, H], a_edge


def attend_blocks(params: Attention, nodes: jax.Array, blocks: Sequence[Block]) -> jax.Array:
  """One attention layer on blocks and an edge from every node to itself.

  The softmax over a receiver's edges spans blocks: each block adds to a running sum of
  exponentials, taken relative to the receiver's largest logit.

  Args:
    params: the layer's parameters.
    nodes: `[n, F]`.
    blocks: bipartite blocks over the n nodes.

  Returns:
    `[n, H * D]`, heads side by side.
  """
  num = nodes.shape[0]
  x = jnp.einsum("nf,fhd->nhd", nodes, params.query)
  send = jnp.einsum("nhd,hd->nh", x, params.send)
  receive = jnp.einsum("nhd,hd->nh", x, params.receive)
  self_edge = params.edge[EDGE_FEATURES.index("self")]
  self_logits = nn.leaky_relu(send + receive + self_edge[None])  # [n, H]

  def block_logits(block):  # [K, S, R, H], -inf where there is no edge
    real = (block.senders < num)[:, :, None] & (block.receivers < num)[:, None]
    sent = _take(send, block.senders)[:, :, None]
    received = _take(receive, block.receivers)[:, None]
    logits = nn.leaky_relu(sent + received + jnp.asarray(block.edges) @ params.edge)
    return jnp.where(real[..., None], logits, -jnp.inf)

  logits = [block_logits(block) for block in blocks]
  largest = self_logits
  for block, values in zip(blocks, logits, strict=True):
    largest = largest.at[block.receivers].max(values.max(1), mode="drop")
  largest = jax.lax.stop_gradient(largest)  # softmax is invariant to it

  weight = jnp.exp(self_logits - largest)
  total, out = weight, weight[..., None] * x
  for block, values in zip(blocks, logits, strict=True):
    weight = jnp.exp(values - _take(largest, block.receivers)[:, None])
    message = jnp.einsum("ksrh,kshd->krhd", weight, _take(x, block.senders))
    total = total.at[block.receivers].add(weight.sum(1), mode="drop")
    out = out.at[block.receivers].add(message, mode="drop")
  return (out / total[..., None]).reshape(num, -1)


def _take(values: jax.Array, ids: jax.Array) -> jax.Array:
  """Rows by node id; any row for an id that does not exist."""
  return values.at[ids].get(mode="clip")


def attend_edges(params: Attention, graph: jraph.GraphsTuple) -> jax.Array:
  """The same layer by `jraph.GAT`; the graph's edges include those to self. `[n, H * D]`."""

  def logits(sent, received, edges):
    raw = (sent * params.send).sum(-1) + (received * params.receive).sum(-1) + edges @ params.edge
    return nn.leaky_relu(raw)[..., None]

  layer = jraph.GAT(
    attention_query_fn=lambda nodes: jnp.einsum("nf,fhd->nhd", nodes, params.query),
    attention_logit_fn=logits,
    node_update_fn=lambda nodes: nodes.reshape(nodes.shape[0], -1),
  )
  return layer(graph).nodes


def to_graphs_tuple(nodes: jax.Array, blocks: Sequence[Block]) -> jraph.GraphsTuple:
  """The graph in its public form: every edge of every block, then one from each node to itself."""
  num = len(nodes)
  own = np.zeros((num, len(EDGE_FEATURES)), np.float32)
  own[:, EDGE_FEATURES.index("self")] = 1.0
  senders, receivers, edges = [], [], []
  for block in blocks:
    shape = block.edges.shape[:-1]
    sent = np.broadcast_to(block.senders[:, :, None], shape)
    received = np.broadcast_to(block.receivers[:, None], shape)
    real = (sent < num) & (received < num)
    senders.append(sent[real])
    receivers.append(received[real])
    edges.append(block.edges[real])
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
  def __call__(self, nodes: jax.Array, blocks: Sequence[Block]) -> jax.Array:
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
