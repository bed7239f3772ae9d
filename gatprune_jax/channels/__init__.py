"""Finds the channels that a network can lose, counts what they cost, and masks or removes them.

Nothing in this package depends on how a mask is learned or searched for.
"""

from gatprune_jax.channels.alignment import Aligned, align
from gatprune_jax.channels.compaction import (
  Compact,
  compact,
  compact_function,
  compact_state,
  compact_variables,
)
from gatprune_jax.channels.compensation import (
  RIDGE,
  Compensation,
  compensate,
  explained,
  measure_compensation,
)
from gatprune_jax.channels.convolutions import WithGroupsBy
from gatprune_jax.channels.costs import (
  MEASURED,
  RESOURCES,
  Budgets,
  Constraints,
  Deployment,
  LatencyTable,
  Resource,
  SumOfProducts,
  activation_bytes,
  bring_to_widths,
  group_starts,
  is_share,
  keep_floors,
  latency,
  macs,
  make_budgets,
  make_constraints,
  nearest_widths,
  params,
  rank_in_group,
  ranks,
  read_latency_table,
  read_limit,
  smallest_mask,
  sum_of_products,
  weight_bytes,
  write_latency_table,
  written,
)
from gatprune_jax.channels.files.litert import export_tflite
from gatprune_jax.channels.files.onnx.export import export_onnx
from gatprune_jax.channels.files.stablehlo import export_stablehlo
from gatprune_jax.channels.files.storage import (
  Loaded,
  Training,
  load_network,
  save_network,
)
from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Group, Layer, Leaf, leaf_paths
from gatprune_jax.channels.interpreter import Convolution
from gatprune_jax.channels.masking import masked
from gatprune_jax.channels.measuring import (
  Timing,
  device_name,
  measure_latency,
  random_widths,
  time_masks,
  uneven_mask,
)
from gatprune_jax.channels.origin import Origin, cut, whole
from gatprune_jax.channels.tracing.function import check_finite
from gatprune_jax.channels.tracing.parameters import parameter_flags
from gatprune_jax.channels.tracing.trace import trace

__all__ = [
  "FROZEN",
  "MEASURED",
  "RESOURCES",
  "RIDGE",
  "Aligned",
  "Budgets",
  "ChannelGraph",
  "Compact",
  "Compensation",
  "Constraints",
  "Convolution",
  "Deployment",
  "Group",
  "LatencyTable",
  "Layer",
  "Leaf",
  "Loaded",
  "Origin",
  "Resource",
  "SumOfProducts",
  "Timing",
  "Training",
  "WithGroupsBy",
  "activation_bytes",
  "align",
  "bring_to_widths",
  "check_finite",
  "compact",
  "compact_function",
  "compact_state",
  "compact_variables",
  "compensate",
  "cut",
  "device_name",
  "explained",
  "export_onnx",
  "export_stablehlo",
  "export_tflite",
  "group_starts",
  "is_share",
  "keep_floors",
  "latency",
  "leaf_paths",
  "load_network",
  "macs",
  "make_budgets",
  "make_constraints",
  "masked",
  "measure_compensation",
  "measure_latency",
  "nearest_widths",
  "parameter_flags",
  "params",
  "random_widths",
  "rank_in_group",
  "ranks",
  "read_latency_table",
  "read_limit",
  "save_network",
  "smallest_mask",
  "sum_of_products",
  "time_masks",
  "trace",
  "uneven_mask",
  "weight_bytes",
  "whole",
  "write_latency_table",
  "written",
]
