"""The table of JAX operations that have an equivalent in ONNX.

To support another operation, add its function to `OPERATIONS`: from the graph, the equation and the
values of its operands to the values of its results.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.files.onnx import indexing, layers, shapes
from gatprune_jax.channels.files.onnx.graph import Graph, Value

Operation = Callable[[Graph, Any, list[Value]], list[Value]]


def _same(kind: str, **attributes: Any) -> Operation:
  """Returns the operation that is one node with the same operands."""
  return lambda graph, eqn, values: [graph.node(kind, *values, **attributes)]


def _of(function: Callable[..., Value]) -> Operation:
  """Returns the operation of a function of the graph, the operands, and a scalar of their dtype."""

  def operation(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    scalar = lambda number: np.array(number, eqn.invars[0].aval.dtype)
    return [function(graph, scalar, *values)]

  return operation


def _identity(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return values


def _cast(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [graph.node("Cast", *values, to=graph.type_of(eqn.outvars[0].aval.dtype))]


def _select(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  which, *cases = values
  if len(cases) != 2 or eqn.invars[0].aval.dtype != np.bool_:
    raise NotImplementedError(f"among {len(cases)} cases")
  return [graph.node("Where", which, cases[1], cases[0])]


def _round(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  if eqn.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
    raise NotImplementedError("away from zero")
  return [graph.node("Round", *values)]


def _integer_power(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [graph.node("Pow", *values, np.array(eqn.params["y"], eqn.invars[0].aval.dtype))]


def _size(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  size = graph.size(eqn.params["dim"])
  return [graph.node("Cast", size, to=graph.type_of(eqn.outvars[0].aval.dtype))]


def _negated(kind: str) -> Operation:
  return lambda graph, eqn, values: [graph.node("Not", graph.node(kind, *values))]


OPERATIONS: dict[str, Operation] = {
  **{
    name: _same(kind)
    for name, kind in {
      "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "add": "Add", "add_any": "Add",
      "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil",
      "cos": "Cos", "cosh": "Cosh", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
      "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log",
      "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg",
      "pow": "Pow", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "sub": "Sub",
      "tan": "Tan", "tanh": "Tanh",
    }.items()
  },
  **{name: _identity for name in ("copy", "copy_p", "optimization_barrier", "stop_gradient")},
  "clamp": _of(lambda g, scalar, low, x, high: g.node("Max", g.node("Min", x, high), low)),
  "convert_element_type": _cast,
  "dim_as_value": _size,
  "erfc": _of(lambda g, scalar, x: g.node("Sub", scalar(1), g.node("Erf", x))),
  "exp2": _of(lambda g, scalar, x: g.node("Pow", scalar(2), x)),
  "expm1": _of(lambda g, scalar, x: g.node("Sub", g.node("Exp", x), scalar(1))),
  "integer_pow": _integer_power,
  "log1p": _of(lambda g, scalar, x: g.node("Log", g.node("Add", x, scalar(1)))),
  "ne": _negated("Equal"),
  "rem": _same("Mod", fmod=1),
  "round": _round,
  "rsqrt": _of(lambda g, scalar, x: g.node("Reciprocal", g.node("Sqrt", x))),
  "select_n": _select,
  "square": _of(lambda g, scalar, x: g.node("Mul", x, x)),
  **shapes.OPERATIONS,
  **indexing.OPERATIONS,
  **layers.OPERATIONS,
}  # fmt: skip
# Operations on truth values, which for numbers are bit by bit.
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def _logical(kind: str) -> Operation:
  def operation(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    if eqn.invars[0].aval.dtype != np.bool_:
      raise NotImplementedError("of numbers, bit by bit")
    return [graph.node(kind, *values)]

  return operation


OPERATIONS.update({name: _logical(kind) for name, kind in LOGICAL.items()})
