"""Closed-form compensation of the channels that a mask removes."""

from gatprune_jax.channels.compensation.explained import explained
from gatprune_jax.channels.compensation.transfer import (
  RIDGE,
  Compensation,
  compensate,
  measure_compensation,
)

__all__ = ["RIDGE", "Compensation", "compensate", "explained", "measure_compensation"]
