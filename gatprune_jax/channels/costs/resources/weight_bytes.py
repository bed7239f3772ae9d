"""The memory that the variables of a masked network take."""

from typing import Any

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources.products import SumOfProducts
from gatprune_jax.channels.costs.resources.variables import sum_over_variables
from gatprune_jax.channels.graph import ChannelGraph


def make_weight_bytes(graph: ChannelGraph, deployment: Deployment) -> SumOfProducts:
  """Returns the bytes of all arrays, each in its own dtype."""
  return sum_over_variables(graph, lambda leaf: leaf.itemsize, "bytes")


def weight_bytes(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the bytes of all variables under a mask `[num_channels]`, 1 = keep.

  Parameters and batch statistics count, each in the dtype in which JAX holds it (float64 becomes
  float32, unless x64 is enabled). This is the memory that the compact network's variables take.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return make_weight_bytes(graph, Deployment()).cost(mask)
