"""Finds the equations of a program that its results need; all others are dead code.

A function may compute what it does not return: values sown for inspection, a head that another
function uses, the value beside a gradient. Dead code must not freeze channels, and costs nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core as jex_core

LAYERS = ("conv_general_dilated", "dot_general")  # the primitives that are layers of a network
# Primitives that only show values. A pruned network does not show them.
_SHOWS = ("debug_callback", "debug_print")


class Live(NamedTuple):
  """An equation that is needed."""

  eqn: Any
  used: tuple[bool, ...]  # for each of its results, whether it is needed


def live_equations(jaxpr: jex_core.Jaxpr, used: Sequence[bool] | None = None) -> list[Live]:
  """Returns the equations that are needed, in execution order.

  An equation with side effects is needed, unless it only shows values.

  Args:
    jaxpr: the program.
    used: for each result of the program, whether it is needed; None: all are.
  """
  used = [True] * len(jaxpr.outvars) if used is None else used
  is_variable = lambda var: not isinstance(var, jex_core.Literal)
  needed = {var for var, flag in zip(jaxpr.outvars, used, strict=True) if flag and is_variable(var)}
  found = []
  for eqn in reversed(jaxpr.eqns):
    flags = tuple(var in needed for var in eqn.outvars)
    acts = bool(eqn.effects) and eqn.primitive.name not in _SHOWS
    if any(flags) or acts:
      needed.update(filter(is_variable, eqn.invars))
      found.append(Live(eqn, flags))
  return found[::-1]


def read_inputs(jaxpr: jex_core.Jaxpr) -> list[bool]:
  """Returns for each input of a program whether its results depend on it."""
  read = {id(var) for live in live_equations(jaxpr) for var in live.eqn.invars}
  read.update(map(id, jaxpr.outvars))
  return [id(var) in read for var in jaxpr.invars]


def every_equation(jaxpr: jex_core.Jaxpr) -> list[Live]:
  """Returns all equations of a program, dead or not, with all of their results."""
  return [Live(eqn, (True,) * len(eqn.outvars)) for eqn in jaxpr.eqns]


def has_dead_code(jaxpr: jex_core.Jaxpr, used: Sequence[bool] | None = None) -> bool:
  """Returns whether a program, or one in its calls, computes what its results do not need.

  Args:
    jaxpr: the program.
    used: for each result of the program, whether it is needed; None: all are.
  """
  live = live_equations(jaxpr, used)
  if len(live) < len(jaxpr.eqns):
    return True
  return any(
    has_dead_code(body, found.used if len(body.outvars) == len(found.used) else None)
    for found in live
    for body in jex_core.jaxprs_in_params(found.eqn.params)
  )


def has_layer(closed: jex_core.ClosedJaxpr) -> bool:
  """Returns whether a program, or one in its calls, has a convolution or dot product."""
  return any(
    eqn.primitive.name in LAYERS
    or any(has_layer(body) for body in jex_core.jaxprs_in_params(eqn.params))
    for eqn in closed.eqns
  )
