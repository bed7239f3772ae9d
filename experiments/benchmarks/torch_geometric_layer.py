"""The layer of `benchmarks.attention` in torch_geometric, which only this module imports."""

from collections.abc import Callable

import numpy as np
import torch
from torch_geometric.nn import GATConv

from experiments.benchmarks.torch_network import device


def forward_and_gradient(
  nodes: np.ndarray,
  senders: np.ndarray,
  receivers: np.ndarray,
  edges: np.ndarray,
  heads: int,
  features: int,
) -> Callable[[], float]:
  """Returns a function that computes a `GATConv` with edge features, and its gradient.

  Args:
    nodes: features of the nodes, `[n, F]`.
    senders: node from which each edge comes, `[e]`, with an edge from each node to itself.
    receivers: node to which each edge goes, `[e]`.
    edges: features of the edges, `[e, E]` float32.
    heads: number of attention heads.
    features: number of features of each head.
  """
  layer = GATConv(
    nodes.shape[1], features, heads, negative_slope=0.01, add_self_loops=False, bias=False,
    edge_dim=edges.shape[1],
  ).to(device())  # fmt: skip
  x = torch.tensor(nodes, device=device(), requires_grad=True)
  ends = torch.tensor(np.stack([senders, receivers])).long().to(device())
  attributes = torch.tensor(edges, device=device())

  def call():
    layer.zero_grad()
    x.grad = None
    (layer(x, ends, attributes) ** 2).sum().backward()
    return float(x.grad[0, 0])

  return call
