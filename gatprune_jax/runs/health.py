"""Counts of the steps whose numbers were not finite, and what they mean for a loop."""

from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

IN_A_ROW = 3  # skipped updates before a roll-back
ROLLBACKS = 3  # before the loop gives up


class Diverged(Exception):
  """A loop met NaN or infinity again and again; the message is a report."""


@flax.struct.dataclass
class Health:
  """Of a loop, or `[C]` of loops side by side."""

  rate: jax.Array  # factor of the learning rates, float32
  skipped: jax.Array  # updates that were not finite, int32
  in_a_row: jax.Array  # the last ones of them, int32
  rollbacks: jax.Array  # int32
  # Updates that were finite on the way to this state: a roll-back forgets those it takes back,
  # which `skipped` goes on counting. int32
  finite: jax.Array


State = TypeVar("State")  # a flax dataclass with a field `health`


def healthy() -> Health:
  """Before the first update."""
  zero = lambda: jnp.zeros((), jnp.int32)
  return Health(jnp.ones(()), zero(), zero(), zero(), zero())


def all_finite(tree: Any) -> jax.Array:
  """Whether no floating-point number of a tree is NaN or infinite; scalar bool."""
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def take_if_finite(finite: jax.Array, new: State, old: State) -> State:
  """The new state, or the old one where something was not finite; counts either way.

  Args:
    finite: scalar bool.
    new: after the update.
    old: before it.
  """
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  health = old.health.replace(
    skipped=old.health.skipped + ~finite,
    in_a_row=jnp.where(finite, 0, old.health.in_a_row + 1),
    finite=old.health.finite + finite,
  )
  return kept.replace(health=health)


def is_finite(in_a_row: jax.Array | np.ndarray) -> bool:
  """Whether the last update of the loop, or of all loops side by side, was finite."""
  return not np.asarray(in_a_row).any()


def must_roll_back(in_a_row: jax.Array | np.ndarray) -> bool:
  """Whether the loop, or one of the loops side by side, skipped three updates in a row."""
  return bool((np.asarray(in_a_row) >= IN_A_ROW).any())


def refuse_if_all_skipped(what: str, num_updates: int, finite: jax.Array | np.ndarray) -> None:
  """Refuses the end of a loop that has changed nothing.

  Args:
    what: the loop, for the report.
    num_updates: how many led to its end.
    finite: how many of them were; of loops side by side, `[C]`.

  Raises:
    Diverged: where no update of the loop, or of one of the loops side by side, was finite.
  """
  if (np.asarray(finite) == 0).any():
    raise Diverged(
      f"{what} is not finite: all {num_updates} updates gave NaN or infinity: look at the images "
      "and at the weights, and configure lower learning rates"
    )
