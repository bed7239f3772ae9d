"""Builds an ONNX graph node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gatprune_jax.channels.files.portable import optional
from gatprune_jax.channels.files.values import encode, evaluate_dimension

_OPSET = 18
_IR_VERSION = 10  # the oldest that holds this opset's models in the runtimes of its time
Value = str | np.ndarray  # the name of a tensor of the graph, or an array that is known already


class Graph:
  """An ONNX graph under construction.

  Args:
    inputs: {name: shape and dtype} of its inputs; a size may be symbolic, "batch".
    batch_of: name of an input whose first axis is the batch; None if the batch has a fixed size.
  """

  def __init__(self, inputs: dict[str, tuple[tuple, np.dtype]], batch_of: str | None):
    (self._onnx,) = optional(["onnx"], "onnx")
    self._helper, self._numpy = optional(["onnx.helper", "onnx.numpy_helper"], "onnx")
    self._inputs, self._batch_of = inputs, batch_of
    self._nodes: list[Any] = []
    self._initializers: dict[tuple, Any] = {}
    self._batch: _Size | None = None

  def node(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
    """Adds a node.

    Args:
      kind: the ONNX operator.
      *inputs: its inputs.
      outputs: number of its outputs.
      **attributes: its attributes.

    Returns:
      The name of its output, or a list of their names if there are several.
    """
    names = [f"{kind}_{len(self._nodes)}_{k}" for k in range(outputs)]
    operands = [self.name(value) for value in inputs]
    self._nodes.append(self._helper.make_node(kind, operands, names, **attributes))
    return names[0] if outputs == 1 else names

  def name(self, value: Value) -> str:
    """Returns the name of a value; an array becomes a constant of the graph."""
    if isinstance(value, str):
      return value
    array = np.asarray(value, order="C")
    key = (array.dtype.name, array.shape, array.tobytes())
    if key not in self._initializers:
      name = f"constant_{len(self._initializers)}"
      self._initializers[key] = self._numpy.from_array(array, name)
    return self._initializers[key].name

  def type_of(self, dtype: Any) -> int:
    """Returns ONNX's number of a dtype."""
    return self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

  def sizes(self, shape: Sequence[Any]) -> Value:
    """Returns a shape as a tensor of int64; its sizes may depend on the batch."""
    if all(isinstance(size, int | np.integer) for size in shape):
      return np.array(shape, np.int64)
    parts = [self.size(size) for size in shape]
    return self.node("Concat", *(self.node("Reshape", p, np.array([1])) for p in parts), axis=0)

  def size(self, size: Any) -> Value:
    """Returns one size, which may depend on the batch, as a scalar of int64."""
    if isinstance(size, int | np.integer):
      return np.array(size, np.int64)
    if self._batch is None:
      shape = self.node("Shape", self._batch_of)
      self._batch = _Size(self, self.node("Gather", shape, np.array(0), axis=0))
    return _value(evaluate_dimension(encode(size)["dimension"], self._batch))

  def model(self, outputs: dict[str, tuple[Value, tuple, np.dtype]]) -> Any:
    """Returns the finished model.

    Args:
      outputs: {name: value, shape and dtype} of its outputs.
    """
    for name, (value, *_) in outputs.items():
      self._nodes.append(self._helper.make_node("Identity", [self.name(value)], [name]))
    info = lambda name, shape, dtype: self._helper.make_tensor_value_info(
      name, self.type_of(dtype), [n if isinstance(n, int) else str(n) for n in shape]
    )
    graph = self._helper.make_graph(
      self._nodes,
      "network",
      [info(name, *form) for name, form in self._inputs.items()],
      [info(name, *form) for name, (_, *form) in outputs.items()],
      list(self._initializers.values()),
    )
    opset = self._helper.make_opsetid("", _OPSET)
    return self._helper.make_model(
      graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="gatprune_jax"
    )


class _Size:
  """A size that depends on the batch: arithmetic on it adds nodes to the graph."""

  def __init__(self, graph: Graph, name: str):
    self._graph, self.name = graph, name

  def _with(self, kind: str, left: Any, right: Any) -> "_Size":
    return _Size(self._graph, self._graph.node(kind, _value(left), _value(right)))

  def __add__(self, other: Any) -> "_Size":
    return self._with("Add", self, other)

  def __sub__(self, other: Any) -> "_Size":
    return self._with("Sub", self, other)

  def __rsub__(self, other: Any) -> "_Size":
    return self._with("Sub", other, self)

  def __mul__(self, other: Any) -> "_Size":
    return self._with("Mul", self, other)

  def __floordiv__(self, other: Any) -> "_Size":
    return self._with("Div", self, other)

  def __mod__(self, other: Any) -> "_Size":
    return self._with("Mod", self, other)

  def __neg__(self) -> "_Size":
    return self._with("Sub", 0, self)

  def __pow__(self, power: int) -> "_Size":
    return self if power == 1 else self * self ** (power - 1)

  __radd__, __rmul__ = __add__, __mul__


def _value(size: Any) -> Value:
  return size.name if isinstance(size, _Size) else np.array(size, np.int64)
