"""A resource added from outside: the number of output channels of all layers together."""

from gatprune_jax.channels.costs import RESOURCES, sum_of_products

NAME = "written_channels"


def written_channels(graph, deployment):
  terms = [(1.0, [layer.outputs]) for layer in graph.layers]
  return sum_of_products(graph.num_channels, terms, "channels")


def add(setitem):
  setitem(RESOURCES, NAME, written_channels)
