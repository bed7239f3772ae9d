"""Encoders by name: graph networks that exchange information between an observation's nodes.

A new encoder is one entry of `ENCODERS`.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
import jax

from gatprune_jax.agent.gat import GraphAttention, graph_attention
from gatprune_jax.agent.jraph_gat import jraph_attention, to_graphs_tuple
from gatprune_jax.errors import InputError
from gatprune_jax.kernels.attention import Bipartite, lay_out


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Settings of the policy's encoder.

  Attributes:
    encoder: "gat" (graph attention), "jraph" (the same network with jraph's own layer, much slower,
      for comparison) or "none" (the encoder exchanges nothing between channels).
    layers: number of graph-attention layers.
    heads: attention heads of each layer.
    head_features: features per head; the hidden width is heads * head_features.
    edge_norms: whether the norm of the kernel between two channels is a feature of their edge.
      Without the norms, attention over a wide layer of n inputs and m outputs costs
      O((n + m) log n) instead of O(n m).
  """

  encoder: str = "gat"
  layers: int = 2
  heads: int = 4
  head_features: int = 8
  edge_norms: bool = True

  def __post_init__(self):
    """Raises InputError for sizes below 1 and for an unknown encoder."""
    for name in ("layers", "heads", "head_features"):
      if (value := getattr(self, name)) < 1:
        raise InputError(f"policy {name} is {value}: it must be at least 1")
    if self.encoder not in ENCODERS:
      raise InputError(
        f"policy encoder {self.encoder!r} is unknown: choose from {', '.join(ENCODERS)}"
      )


class Encoder(NamedTuple):
  """Graph network in two parts, because its index arrays are computed on the host.

  Attributes:
    lay_out: (sets of edges, number n of nodes) -> a tree of arrays in the form that `encode` reads.
      It is called once per search.
    encode: (config, nodes `[n, W]`, the result of `lay_out`) -> nodes `[n, W]`, where W is
      heads * head_features. It is called inside the policy's compact method, so the Flax submodules
      that it creates belong to the policy.
  """

  lay_out: Callable[[Sequence[Bipartite], int], Any]
  encode: Callable[[PolicyConfig, jax.Array, Any], jax.Array]


def _attention_layers(attention: Callable) -> Callable[[PolicyConfig, jax.Array, Any], jax.Array]:
  """Returns an encoder of pre-norm residual layers, x + Dense(ELU(GAT(LayerNorm(x))))."""

  def encode(config, nodes, edges):
    for index in range(config.layers):
      normed = nn.LayerNorm(name=f"norm{index}")(nodes)
      layer = GraphAttention(config.heads, config.head_features, attention, name=f"gat{index}")
      mix = nn.Dense(nodes.shape[-1], name=f"mix{index}")
      nodes = nodes + mix(nn.elu(layer(normed, edges)))
    return nodes

  return encode


ENCODERS: dict[str, Encoder] = {
  "gat": Encoder(lay_out, _attention_layers(graph_attention)),
  "jraph": Encoder(
    lambda sets, num: to_graphs_tuple(None, sets, num), _attention_layers(jraph_attention)
  ),
  "none": Encoder(lambda sets, num: (), lambda config, nodes, edges: nodes),
}
