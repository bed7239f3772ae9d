"""Counts of the updates that gave NaN or infinity, and how a loop reacts to them."""

from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

IN_A_ROW = 3  # skipped updates in a row after which a loop is rolled back
ROLLBACKS = 3  # roll-backs after which a loop gives up


class Diverged(Exception):
  """A loop kept giving NaN or infinity; the message is a report for the user."""


@flax.struct.dataclass
class Health:
  """Counts of a loop's updates: scalars, or `[C]` for C networks trained side by side."""

  rate: jax.Array  # factor on the configured learning rates, float32
  skipped: jax.Array  # all updates that were skipped because they were not finite, int32
  in_a_row: jax.Array  # skipped updates since the last finite one or roll-back, int32
  rollbacks: jax.Array  # roll-backs so far, int32
  # Finite updates that led to this state, int32. A roll-back also sets this count back to that of
  # the saved state, whereas `skipped` keeps counting.
  finite: jax.Array


State = TypeVar("State")  # a flax dataclass with a field `health`


def healthy() -> Health:
  """Returns the health of one loop before its first update."""
  zero = lambda: jnp.zeros((), jnp.int32)
  return Health(jnp.ones(()), zero(), zero(), zero(), zero())


def all_finite(tree: Any) -> jax.Array:
  """Returns whether no floating-point number in a tree is NaN or infinite; a scalar bool."""
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def take_if_finite(finite: jax.Array, new: State, old: State) -> State:
  """Returns the new state if the update was finite, else the old one; both with new counts.

  Args:
    finite: whether the update was finite, scalar bool.
    new: the state after the update.
    old: the state before it.
  """
  # For a choice leaf by leaf XLA would compute `finite` from all leaves anew for each of them, so
  # that the time to compile it would grow with the square of their number.
  kept = jax.lax.cond(finite, lambda: new, lambda: old)
  health = old.health.replace(
    skipped=old.health.skipped + ~finite,
    in_a_row=jnp.where(finite, 0, old.health.in_a_row + 1),
    finite=old.health.finite + finite,
  )
  return kept.replace(health=health)


def is_finite(in_a_row: jax.Array | np.ndarray) -> bool:
  """Returns whether the last update of the loop, or of all networks side by side, was finite."""
  return not np.asarray(in_a_row).any()


def must_roll_back(in_a_row: jax.Array | np.ndarray) -> bool:
  """Returns whether the loop, or one of the networks side by side, skipped too many in a row."""
  return bool((np.asarray(in_a_row) >= IN_A_ROW).any())


def refuse_if_all_skipped(what: str, num_updates: int, finite: jax.Array | np.ndarray) -> None:
  """Raises Diverged at the end of a loop that has changed nothing.

  Args:
    what: name of the loop in the report.
    num_updates: number of updates that led to the final state, without those that roll-backs undid.
    finite: how many of these updates were finite, a scalar, or `[C]` for networks side by side.

  Raises:
    Diverged: where no update of the loop, or of one of the networks side by side, was finite.
  """
  if (np.asarray(finite) == 0).any():
    raise Diverged(
      f"{what} is not finite: all {num_updates} updates gave NaN or infinity: look at the images "
      "and at the weights, and configure lower learning rates"
    )
