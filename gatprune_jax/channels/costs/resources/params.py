"""The parameters of a masked network."""

from typing import Any

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources.products import SumOfProducts
from gatprune_jax.channels.costs.resources.variables import sum_over_variables
from gatprune_jax.channels.graph import ChannelGraph


def make_params(graph: ChannelGraph, deployment: Deployment) -> SumOfProducts:
  """Returns the number of elements of all arrays that are parameters."""
  return sum_over_variables(graph, lambda leaf: int(leaf.is_parameter), "parameters")


def params(graph: ChannelGraph, mask: Any) -> Any:
  """Counts the parameters under a mask `[num_channels]`, 1 = keep, without batch statistics.

  Returns:
    Exact float64, or a float32 scalar if JAX is tracing the mask.

  Raises:
    InputError: the mask has another shape.
  """
  return make_params(graph, Deployment()).cost(mask)
