"""Operations that move elements, and reductions over whole axes, as nodes of ONNX."""

from typing import Any

import numpy as np

from gatprune_jax.channels.files.onnx.graph import Graph, Value


def transposed(graph: Graph, value: Value, order: Any) -> Value:
  """Returns a value with its axes in another order; result axis k is axis `order[k]`."""
  order = [int(axis) for axis in order]
  if order == list(range(len(order))):
    return value
  if isinstance(value, np.ndarray):
    return value.transpose(order)
  return graph.node("Transpose", value, perm=order)


def reshaped(graph: Graph, value: Value, shape: Any) -> Value:
  """Returns a value with another shape; sizes may depend on the batch."""
  unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
  if len(unknown) == 1:  # ONNX infers one size, written as -1
    shape = [size if isinstance(size, int) else -1 for size in shape]
  return graph.node("Reshape", value, graph.sizes(shape), allowzero=0)


def _transpose(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [transposed(graph, values[0], eqn.params["permutation"])]


def _reshape(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  if eqn.params.get("dimensions") is not None:
    raise NotImplementedError("with its axes in another order")
  return [reshaped(graph, values[0], eqn.outvars[0].aval.shape)]


def _squeeze(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [graph.node("Squeeze", values[0], np.array(eqn.params["dimensions"], np.int64))]


def _broadcast(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  x, places, shape = values[0], eqn.params["broadcast_dimensions"], eqn.outvars[0].aval.shape
  new = [axis for axis in range(len(shape)) if axis not in places]
  placed = dict(zip(places, eqn.invars[0].aval.shape, strict=True))
  if new:
    x = graph.node("Unsqueeze", x, np.array(new, np.int64))
  if all(placed.get(axis, 1) == size for axis, size in enumerate(shape)):
    return [x]
  # A size of 1 lets an axis as it is, so that the batch of the operand need not be known.
  target = [1 if placed.get(axis, 1) == size else size for axis, size in enumerate(shape)]
  return [graph.node("Expand", x, graph.sizes(target))]


def _concatenate(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [graph.node("Concat", *values, axis=eqn.params["dimension"])]


def _stack(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  axis = eqn.params["axis"]
  rows = [graph.node("Unsqueeze", value, np.array([axis])) for value in values]
  return [graph.node("Concat", *rows, axis=axis)]


def _split(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  sizes, axis = eqn.params["sizes"], eqn.params["axis"]
  parts = graph.node("Split", values[0], graph.sizes(sizes), outputs=len(sizes), axis=axis)
  return parts if len(sizes) > 1 else [parts]


def _unstack(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  axis, num = eqn.params["axis"], len(eqn.outvars)
  parts = graph.node("Split", values[0], np.ones(num, np.int64), outputs=num, axis=axis)
  parts = parts if num > 1 else [parts]
  return [graph.node("Squeeze", part, np.array([axis])) for part in parts]


def _tile(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  return [graph.node("Tile", values[0], graph.sizes(eqn.params["reps"]))]


def _pad(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  x, filler = values
  low, high, interior = zip(*eqn.params["padding_config"], strict=True)
  if any(interior):
    raise NotImplementedError("between elements")
  if min(*low, *high) < 0:
    x = graph.node("Pad", x, np.array([*np.minimum(low, 0), *np.minimum(high, 0)], np.int64))
  if max(*low, *high) > 0:
    x = graph.node("Pad", x, np.array([*np.maximum(low, 0), *np.maximum(high, 0)]), filler)
  return [x]


def _reduce(kind: str):
  """Returns the operation of a reduction, which for truth values is one of the numbers 0 and 1."""

  def operation(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    x, dtype = values[0], eqn.outvars[0].aval.dtype
    axes = np.array(eqn.params["axes"], np.int64)
    if not len(axes):
      return [x]
    if dtype == np.bool_:
      number = graph.node("Cast", x, to=graph.type_of(np.int32))
      number = graph.node(kind, number, axes, keepdims=0)
      return [graph.node("Cast", number, to=graph.type_of(np.bool_))]
    return [graph.node(kind, x, axes, keepdims=0)]

  return operation


def _arg(kind: str):
  def operation(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    (axis,) = eqn.params["axes"]
    index = graph.node(kind, values[0], axis=axis, keepdims=0)
    return [graph.node("Cast", index, to=graph.type_of(eqn.outvars[0].aval.dtype))]

  return operation


def _cumulative_sum(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  axis, reverse = np.array(eqn.params["axis"], np.int64), int(eqn.params["reverse"])
  return [graph.node("CumSum", values[0], axis, reverse=reverse)]


OPERATIONS = {
  "argmax": _arg("ArgMax"),
  "argmin": _arg("ArgMin"),
  "broadcast_in_dim": _broadcast,
  "concatenate": _concatenate,
  "cumsum": _cumulative_sum,
  "pad": _pad,
  "reduce_and": _reduce("ReduceMin"),
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_or": _reduce("ReduceMax"),
  "reduce_prod": _reduce("ReduceProd"),
  "reduce_sum": _reduce("ReduceSum"),
  "reshape": _reshape,
  "split": _split,
  "squeeze": _squeeze,
  "stack": _stack,
  "tile": _tile,
  "transpose": _transpose,
  "unstack": _unstack,
}
