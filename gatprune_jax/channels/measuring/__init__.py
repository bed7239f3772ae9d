"""Measures how long networks and their layers take on the device at hand."""

from gatprune_jax.channels.measuring.layers import LayerProgram, layer_programs
from gatprune_jax.channels.measuring.networks import Timing, time_masks
from gatprune_jax.channels.measuring.random_masks import random_widths, uneven_mask
from gatprune_jax.channels.measuring.tables import device_name, measure_latency

__all__ = [
  "LayerProgram",
  "Timing",
  "device_name",
  "layer_programs",
  "measure_latency",
  "random_widths",
  "time_masks",
  "uneven_mask",
]
