"""Graph attention by `jraph.GAT` on an edge list: the slow reference for `graph_attention`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatprune_jax.agent.gat import Attention
from gatprune_jax.kernels.attention import EDGE_FEATURES, SELF, SLOPE, Bipartite


def to_graphs_tuple(nodes: Any, sets: Sequence[Bipartite], num: int) -> jraph.GraphsTuple:
  """Lists every edge of every set, then one edge from each node to itself, in jraph's form.

  Args:
    nodes: features `[n, F]`, or None.
    sets: the sets of edges; an edge with a node id of n or more at either end is left out.
    num: n, the number of nodes.

  Returns:
    The graph, with edge features `[e, len(EDGE_FEATURES)]` float32.
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
  """Applies the attention layer of module `gat`, computed by `jraph.GAT`.

  Args:
    params: the layer's parameters.
    nodes: features `[n, F]`, which replace the nodes of the graph.
    graph: the edges, from `to_graphs_tuple`.

  Returns:
    `[n, H * D]`, the outputs of the heads concatenated.
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
