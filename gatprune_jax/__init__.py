"""Channel pruning of trained convolutional networks by graph-based reinforcement learning."""

from gatprune_jax.channels import (
  ChannelGraph,
  Compact,
  activation_bytes,
  compact,
  compact_state,
  export_stablehlo,
  load,
  macs,
  masked,
  params,
  save,
  trace,
)
from gatprune_jax.errors import InputError
from gatprune_jax.report import describe

__version__ = "0.1.0"

__all__ = [
  "ChannelGraph",
  "Compact",
  "InputError",
  "activation_bytes",
  "compact",
  "compact_state",
  "describe",
  "export_stablehlo",
  "load",
  "macs",
  "masked",
  "params",
  "save",
  "trace",
]
