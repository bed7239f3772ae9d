"""Graph attention (Velickovic et al. 2018, arXiv 1710.10903) with edge features and several heads.

For receiver r with incoming edges e: s -> r, head h:

  logit_eh = LeakyReLU(a_send_h . W_h x_s + a_recv_h . W_h x_r + a_edge_h . f_e)
  y_rh     = sum_e softmax_e(logit_eh) W_h x_s

The edge features f_e are the norm of the kernel between two channels, and flags that are equal for
all edges of a set. `graph_attention` evaluates the layer on complete bipartite sets of edges and
stores no feature vector per edge. `jraph_attention` is the reference implementation on an edge
list. Both give the same result up to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.kernels.attention import EDGE_FEATURES, Layout, attend


class Attention(NamedTuple):
  """Parameters of one attention layer with H heads of D features each."""

  query: jax.Array  # [F, H, D], W
  send: jax.Array  # [H, D], a_send
  receive: jax.Array  # [H, D], a_recv
  edge: jax.Array  # [E, H], a_edge


def graph_attention(params: Attention, nodes: jax.Array, edges: Layout) -> jax.Array:
  """Applies one attention layer over the edges and one more edge from every node to itself.

  Args:
    params: the layer's parameters.
    nodes: features of the nodes, `[n, F]`.
    edges: the edges between the n nodes, from `lay_out`.

  Returns:
    `[n, H * D]`, the outputs of the heads concatenated.
  """
  chex.assert_rank(nodes, 2)
  x = jnp.einsum("nf,fhd->hnd", nodes, params.query)
  send = jnp.einsum("hnd,hd->hn", x, params.send)
  receive = jnp.einsum("hnd,hd->hn", x, params.receive)
  means = attend(send, receive, x, params.edge, edges)
  return means.transpose(1, 0, 2).reshape(nodes.shape[0], -1)


class GraphAttention(nn.Module):
  """Attention layer with learned parameters, from nodes `[n, F]` to `[n, heads * features]`.

  Attributes:
    heads: H, the number of heads.
    features: D, the features per head.
    attention: (parameters, nodes, edges) -> nodes, such as `graph_attention`.
  """

  heads: int
  features: int
  attention: Callable[[Attention, jax.Array, Any], jax.Array] = graph_attention

  @nn.compact
  def __call__(self, nodes: jax.Array, edges: Any) -> jax.Array:
    """Applies `attention` to nodes and edges."""
    glorot = nn.initializers.glorot_uniform(in_axis=0, out_axis=(1, 2))
    small = nn.initializers.normal(self.features**-0.5)
    shape = (self.heads, self.features)
    params = Attention(
      query=self.param("query", glorot, (nodes.shape[-1], *shape)),
      send=self.param("send", small, shape),
      receive=self.param("receive", small, shape),
      edge=self.param("edge", nn.initializers.normal(0.1), (len(EDGE_FEATURES), self.heads)),
    )
    return self.attention(params, nodes, edges)
