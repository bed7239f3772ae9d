"""Channel pruning of trained convolutional networks by graph-based reinforcement learning."""

from gatprune_jax.channels import (
  ChannelGraph,
  Compact,
  compact,
  load,
  macs,
  masked,
  params,
  save,
  trace,
)
from gatprune_jax.errors import InputError

__version__ = "0.1.0"

__all__ = [
  "ChannelGraph",
  "Compact",
  "InputError",
  "compact",
  "load",
  "macs",
  "masked",
  "params",
  "save",
  "trace",
]
