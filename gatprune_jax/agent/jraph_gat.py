"""The channel graph as `jraph.GraphsTuple`, and graph attention by `jraph.GAT` on its edge list."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatprune_jax.agent.gat import Attention
from gatprune_jax.kernels.attention import EDGE_FEATURES, SELF, SLOPE, Bipartite


def to_graphs_tuple(nodes: Any, sets: Sequence[Bipartite], num: int) -> jraph.GraphsTuple:
  """A graph in jraph's form: every edge of every set, then one from each node to itself.

  Args:
    nodes: features `[n, F]`, or None.
    sets: the edges; those of an end at or above n do not exist.
    num: n.

  Returns:
    The graph, with edges `[e, len(EDGE_FEATURES)]` float32.
  """
  own = np.zeros((num, len(EDGE_FEATURES)), np.float32)
  own[:, SELF] = 1.0
  senders, receivers, edges = [], [], []
  for one in sets:
    shape = (len(one.senders), len(one.receivers))
    sent = np.broadcast_to(one.senders[:, None], shape)
    received = np.broadcast_to(one.receivers[None], shape)
    shared = np.broadcast_to(one.flags, (*shape, len(one.flags)))
    norms = np.zeros(shape, np.float32) if one.norms is None else one.norms
    real = (sent < num) & (received < num)
    senders.append(sent[real])
    receivers.append(received[real])
    edges.append(np.concatenate([norms[real][:, None], shared[real]], axis=1, dtype=np.float32))
  senders = np.concatenate([*senders, np.arange(num)]).astype(np.int32)
  return jraph.GraphsTuple(
    nodes=nodes,
    edges=np.concatenate([*edges, own]),
    senders=senders,
    receivers=np.concatenate([*receivers, np.arange(num)]).astype(np.int32),
    globals=None,
    n_node=np.array([num]),
    n_edge=np.array([len(senders)]),
  )


def jraph_attention(params: Attention, nodes: jax.Array, graph: jraph.GraphsTuple) -> jax.Array:
  """The layer of `gat` by `jraph.GAT`: nodes `[n, F]` to `[n, H * D]`.

  Args:
    params: the layer's parameters.
    nodes: `[n, F]`, instead of those of the graph.
    graph: from `to_graphs_tuple`.
  """

  def logits(sent, received, edges):
    raw = (sent * params.send).sum(-1) + (received * params.receive).sum(-1) + edges @ params.edge
    return jax.nn.leaky_relu(raw, SLOPE)[..., None]

  layer = jraph.GAT(
    attention_query_fn=lambda nodes: jnp.einsum("nf,fhd->nhd", nodes, params.query),
    attention_logit_fn=logits,
    node_update_fn=lambda nodes: nodes.reshape(nodes.shape[0], -1),
  )
  with jax.numpy_rank_promotion("allow"):  # jraph adds arrays of different ranks
    return layer(graph._replace(nodes=nodes)).nodes
