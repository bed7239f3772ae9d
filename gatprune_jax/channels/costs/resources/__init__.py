"""Costs of a masked network as functions of the mask: one file for each resource."""

from gatprune_jax.channels.costs.resources.activation_bytes import Peak, activation_bytes
from gatprune_jax.channels.costs.resources.catalogue import MEASURED, RESOURCES
from gatprune_jax.channels.costs.resources.latency import Interpolated, latency
from gatprune_jax.channels.costs.resources.macs import macs
from gatprune_jax.channels.costs.resources.params import params
from gatprune_jax.channels.costs.resources.products import (
  Products,
  SumOfProducts,
  products,
  sum_of_products,
)
from gatprune_jax.channels.costs.resources.resource import Resource
from gatprune_jax.channels.costs.resources.weight_bytes import weight_bytes

__all__ = [
  "MEASURED",
  "RESOURCES",
  "Interpolated",
  "Peak",
  "Products",
  "Resource",
  "SumOfProducts",
  "activation_bytes",
  "latency",
  "macs",
  "params",
  "products",
  "sum_of_products",
  "weight_bytes",
]
