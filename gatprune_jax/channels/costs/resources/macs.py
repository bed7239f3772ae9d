"""The multiply-adds of a masked network."""

from typing import Any

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources.products import SumOfProducts, sum_of_products
from gatprune_jax.channels.graph import ChannelGraph


def make_macs(graph: ChannelGraph, deployment: Deployment) -> SumOfProducts:
  """Returns sum over layers of macs_per_pair * product over axes of the kept elements."""
  terms = [(layer.macs_per_pair, layer.axes) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "MACs")


def macs(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the multiply-adds of one example under a mask `[num_channels]`, 1 = keep.

  One multiply-add is one MAC. Convolutions and dot products are counted with the whole kernel at
  every output position, including multiplications by padding. Normalisation, pooling and biases
  are not counted.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return make_macs(graph, Deployment()).cost(mask)
