"""Reads off a `scan` which of its operands are what, in every version of JAX."""

from jax.extend import core as jex_core


def loop_sizes(eqn: jex_core.JaxprEqn) -> tuple[int, int]:
  """Returns how many operands of a `scan` are constants, and how many are its first state.

  The operands are constants, state and the arrays that the loop walks along; the results are the
  last state and the stacked outputs. Only an array that is walked along or stacked has one axis
  more than in the body. The equation's parameters have other names in other versions of JAX.
  """
  body = eqn.params["jaxpr"]

  def num_whole(outside, inside) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(var.aval.shape) == len(aval.shape) for var, aval in pairs)

  num_state = num_whole(eqn.outvars, body.out_avals)
  return num_whole(eqn.invars, body.in_avals) - num_state, num_state
