"""Computes what a masked network costs and which masks the budgets and floors allow."""

from gatprune_jax.channels.costs.budgets import Budgets, make_budgets
from gatprune_jax.channels.costs.constraints import Constraints, make_constraints
from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.floors import keep_floors, raise_to_floors, smallest_mask
from gatprune_jax.channels.costs.limits import read_limit, written
from gatprune_jax.channels.costs.ranking import group_starts, rank_in_group, ranks
from gatprune_jax.channels.costs.resources import (
  RESOURCES,
  Peak,
  Products,
  Resource,
  SumOfProducts,
  activation_bytes,
  macs,
  params,
  products,
  sum_of_products,
  weight_bytes,
)

__all__ = [
  "RESOURCES",
  "Budgets",
  "Constraints",
  "Deployment",
  "Peak",
  "Products",
  "Resource",
  "SumOfProducts",
  "activation_bytes",
  "group_starts",
  "keep_floors",
  "macs",
  "make_budgets",
  "make_constraints",
  "params",
  "products",
  "raise_to_floors",
  "rank_in_group",
  "ranks",
  "read_limit",
  "smallest_mask",
  "sum_of_products",
  "weight_bytes",
  "written",
]
