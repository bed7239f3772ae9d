"""Computes what a masked network costs and which masks the budgets and floors allow."""

from gatprune_jax.channels.costs.budgets import Budgets, make_budgets
from gatprune_jax.channels.costs.constraints import Constraints, make_constraints
from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.floors import keep_floors, smallest_mask
from gatprune_jax.channels.costs.latency_table import (
  LatencyTable,
  read_latency_table,
  write_latency_table,
)
from gatprune_jax.channels.costs.limits import is_share, read_limit, written
from gatprune_jax.channels.costs.ranking import group_starts, rank_in_group, ranks
from gatprune_jax.channels.costs.resources import (
  MEASURED,
  RESOURCES,
  Interpolated,
  Peak,
  Products,
  Resource,
  SumOfProducts,
  activation_bytes,
  latency,
  macs,
  params,
  products,
  sum_of_products,
  weight_bytes,
)
from gatprune_jax.channels.costs.widths import bring_to_widths, nearest_widths

__all__ = [
  "MEASURED",
  "RESOURCES",
  "Budgets",
  "Constraints",
  "Deployment",
  "Interpolated",
  "LatencyTable",
  "Peak",
  "Products",
  "Resource",
  "SumOfProducts",
  "activation_bytes",
  "bring_to_widths",
  "group_starts",
  "is_share",
  "keep_floors",
  "latency",
  "macs",
  "make_budgets",
  "make_constraints",
  "nearest_widths",
  "params",
  "products",
  "rank_in_group",
  "ranks",
  "read_latency_table",
  "read_limit",
  "smallest_mask",
  "sum_of_products",
  "weight_bytes",
  "write_latency_table",
  "written",
]
