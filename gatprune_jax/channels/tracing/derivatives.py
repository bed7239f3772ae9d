"""The derivative rules of functions that have their own, as programs at the dense shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp


class Derivative(NamedTuple):
  """A derivative rule.

  Attributes:
    program: for a `custom_jvp_call`, (operands, tangents of the moving ones) -> (results, their
      tangents); for a `custom_vjp_call`, (operands, cotangents of the counted results) ->
      cotangents of the moving operands.
    moving: which operands are floating-point numbers, so that they can move.
    counted: which results are floating-point numbers.
  """

  program: jex_core.ClosedJaxpr
  moving: list[int]
  counted: list[int]


def derivative(eqn: jex_core.JaxprEqn) -> Derivative:
  """Traces the derivative rule of a `custom_jvp_call` or `custom_vjp_call`."""
  dense = [v.aval for v in eqn.invars]
  original = lambda *args: evaluate_alone(eqn, list(args))
  results = jax.eval_shape(original, *dense)
  moving, counted = floating(dense), floating(results)

  def jvp(primals, moved):
    of_moving = _of_some(original, primals, moving)
    return jax.jvp(of_moving, tuple(primals[i] for i in moving), tuple(moved))

  def vjp(primals, cotangents):
    of_moving = _of_some(original, primals, moving)
    of_counted = lambda *values: [of_moving(*values)[i] for i in counted]
    return jax.vjp(of_counted, *(primals[i] for i in moving))[1](cotangents)

  if eqn.primitive.name == "custom_jvp_call":
    program = jax.make_jaxpr(jvp)(tuple(dense), [dense[i] for i in moving])
  else:
    program = jax.make_jaxpr(vjp)(tuple(dense), [results[i] for i in counted])
  return Derivative(program, moving, counted)


def floating(values: Any) -> list[int]:
  """Returns the positions of the values whose dtype is one of floating-point numbers."""
  return [i for i, value in enumerate(values) if jnp.issubdtype(value.dtype, jnp.inexact)]


def evaluate_alone(eqn: jex_core.JaxprEqn, values: list[Any]) -> list[Any]:
  """Evaluates one equation as it stands, as a program of its own.

  This works for every kind of primitive, including the ones that hold programs as parameters.
  """
  operands = {
    var: value
    for var, value in zip(eqn.invars, values, strict=True)
    if not isinstance(var, jex_core.Literal)
  }
  empty = jax.make_jaxpr(lambda: ())().jaxpr
  alone = empty.replace(invars=list(operands), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects)
  return jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(alone, []))(*operands.values())


def _of_some(fn: Callable, args: Any, moving: list[int]) -> Callable:
  """Returns fn as a function of the arguments at the given places, with all others fixed."""

  def of_moving(*values):
    every = dict(enumerate(args)) | dict(zip(moving, values, strict=True))
    return fn(*every.values())

  return of_moving
