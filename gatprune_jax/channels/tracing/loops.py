"""Reads off a `scan` or a `while` which of its operands are what, in every version of JAX."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core as jex_core

LOOPS = ("scan", "while")


def loop_sizes(eqn: jex_core.JaxprEqn) -> tuple[int, int]:
  """Returns how many operands of a loop's body are constants, and how many are its first state.

  The operands are constants, state and the arrays that a `scan` walks along; the results are the
  last state and the stacked outputs. Only an array that is walked along or stacked has one axis
  more than in the body. The equation's parameters have other names in other versions of JAX.
  """
  if eqn.primitive.name == "while":
    return eqn.params["body_nconsts"], len(eqn.outvars)
  body = eqn.params["jaxpr"]

  def num_whole(outside, inside) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(var.aval.shape) == len(aval.shape) for var, aval in pairs)

  num_state = num_whole(eqn.outvars, body.out_avals)
  return num_whole(eqn.invars, body.in_avals) - num_state, num_state


def of_body(eqn: jex_core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
  """Returns a loop's operands without the constants of its condition, which come first."""
  return [*operands[eqn.params.get("cond_nconsts", 0) :]]


def of_condition(eqn: jex_core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
  """Returns the operands of a `while` that its condition is given at first, without the body's."""
  first = eqn.params["cond_nconsts"]
  return [*operands[:first], *operands[first + eqn.params["body_nconsts"] :]]
