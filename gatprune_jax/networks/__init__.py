"""Networks as pure functions of their variables, and the tasks that they are trained for.

Networks written in Flax Linen, Flax NNX, Equinox or plain JAX are turned into one form, `Network`.
"""

from gatprune_jax.networks.equinox import from_equinox
from gatprune_jax.networks.files import check_saving, load, save
from gatprune_jax.networks.flax_linen import from_linen
from gatprune_jax.networks.flax_nnx import from_nnx
from gatprune_jax.networks.network import (
  Network,
  check_network,
  compact_network,
  fast_network,
  masked_network,
)
from gatprune_jax.networks.task import CLASSIFICATION, Task, check_task

__all__ = [
  "CLASSIFICATION",
  "Network",
  "Task",
  "check_network",
  "check_saving",
  "check_task",
  "compact_network",
  "fast_network",
  "from_equinox",
  "from_linen",
  "from_nnx",
  "load",
  "masked_network",
  "save",
]
