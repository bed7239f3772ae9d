"""Measures how long networks and their layers take on the device at hand."""

from gatprune_jax.channels.measuring.layers import LayerProgram, layer_programs
from gatprune_jax.channels.measuring.networks import (
  Timing,
  network_program,
  random_widths,
  time_networks,
)
from gatprune_jax.channels.measuring.tables import device_name, measure_latency, uneven_mask

__all__ = [
  "LayerProgram",
  "Timing",
  "device_name",
  "layer_programs",
  "measure_latency",
  "network_program",
  "random_widths",
  "time_networks",
  "uneven_mask",
]
