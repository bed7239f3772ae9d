"""Arrays of nodes spread over places, and back: gathers both ways.

A gather's gradient is a scatter-add, which accelerators do in any order, so that its sums round
differently from run to run, and slowly where many places are one node's. Here places know their
node and nodes their places, and either direction is the gradient of the other.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Places(NamedTuple):
  """Places of an array, each with the values of one node or of none; they have P elements."""

  ids: np.ndarray  # [...] int32, the node of each place; n and above are nobody
  slots: np.ndarray  # [n, K] int32, the places of each node in flat order; P and above are none


def find_places(ids: np.ndarray, num_nodes: int) -> Places:
  """The places of each of n nodes among ids `[...]`, K at most."""
  flat = ids.ravel()
  order = np.argsort(flat, kind="stable")[: np.count_nonzero(flat < num_nodes)]
  counts = np.bincount(flat[order], minlength=num_nodes)
  rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
  slots = np.full((num_nodes, counts.max(initial=0)), flat.size, np.int32)
  slots[flat[order], rank] = order
  return Places(ids.astype(np.int32), slots)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def spread(values: jax.Array, places: Places, nobody: float) -> jax.Array:
  """The value of each place's node.

  Args:
    values: `[n, ...]`.
    places: P places.
    nobody: the value of a place of no node.

  Returns:
    `[*ids.shape, ...]`.
  """
  return values.at[places.ids].get(mode="fill", fill_value=nobody)


@jax.custom_vjp
def collect(parts: jax.Array, places: Places) -> jax.Array:
  """The sum over each node's places.

  Args:
    parts: `[*ids.shape, ...]`.
    places: P places.

  Returns:
    `[n, ...]`.
  """
  return _of_each_node(parts, places, 0.0).sum(1)


def highest(parts: jax.Array, places: Places) -> jax.Array:
  """The largest of each node's places, minus infinity without any; not differentiated."""
  return _of_each_node(jax.lax.stop_gradient(parts), places, -jnp.inf).max(1, initial=-jnp.inf)


def _of_each_node(parts, places, nothing):  # [n, K, ...]
  flat = parts.reshape(-1, *parts.shape[places.ids.ndim :])
  return flat.at[places.slots].get(mode="fill", fill_value=nothing)


spread.defvjp(
  lambda values, places, nobody: (spread(values, places, nobody), places),
  lambda nobody, places, cotangent: (collect(cotangent, places), None),
)
collect.defvjp(
  lambda parts, places: (collect(parts, places), places),
  lambda places, cotangent: (spread(cotangent, places, 0.0), None),
)
