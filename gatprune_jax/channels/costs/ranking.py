"""Ranks channels by priority, among all channels or among the channels of their group."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import ChannelGraph


def ranks(priority: np.ndarray) -> np.ndarray:
  """Returns each channel's rank among all, 0 for the highest priority, int64 `[N]`; ties by id."""
  return np.argsort(np.argsort(-np.asarray(priority, np.float64), kind="stable"))


def rank_in_group(priority: jax.Array, group_of: jax.Array, starts: jax.Array) -> jax.Array:
  """Returns each channel's rank in its group, 0 for the highest priority, int32 `[N]`.

  Args:
    priority: `[N]`; of channels with equal priority, the one with the lower id ranks first.
    group_of: group of each channel `[N]`.
    starts: number of channels in all groups before each group `[groups]`.
  """
  order = jnp.lexsort((-priority, group_of))
  position = jnp.zeros(len(priority), jnp.int32).at[order].set(jnp.arange(len(priority)))
  return position - starts[group_of]


def group_starts(graph: ChannelGraph) -> np.ndarray:
  """Returns the number of channels in all groups before each group, int64 `[groups]`."""
  widths = [len(group.channels) for group in graph.groups]
  return np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
