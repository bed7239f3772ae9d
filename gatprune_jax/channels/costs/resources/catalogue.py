"""The resources that budgets can limit, by name."""

from collections.abc import Callable

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources.activation_bytes import make_activation_bytes
from gatprune_jax.channels.costs.resources.latency import make_latency
from gatprune_jax.channels.costs.resources.macs import make_macs
from gatprune_jax.channels.costs.resources.params import make_params
from gatprune_jax.channels.costs.resources.resource import Resource
from gatprune_jax.channels.costs.resources.weight_bytes import make_weight_bytes
from gatprune_jax.channels.graph import ChannelGraph

# A new resource needs one entry: {name: function from a graph, and from how the network will be
# run, to the `Resource`}.
RESOURCES: dict[str, Callable[[ChannelGraph, Deployment], Resource]] = {
  "macs": make_macs,
  "params": make_params,
  "weight_bytes": make_weight_bytes,
  "activation_bytes": make_activation_bytes,
  "latency": make_latency,
}
# Those that are not counted but measured, so that they need a table in the `Deployment`.
MEASURED = ("latency",)
