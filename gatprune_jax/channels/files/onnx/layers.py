"""Convolutions, dot products and pooling as nodes of ONNX, whose images are channels first."""

import string
from typing import Any

import numpy as np

from gatprune_jax.channels.files.onnx.graph import Graph, Value
from gatprune_jax.channels.files.onnx.shapes import transposed


def _conv(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  p, numbers = eqn.params, eqn.params["dimension_numbers"]
  if any(dilation != 1 for dilation in p["lhs_dilation"]):
    raise NotImplementedError("with zeros between the inputs (a transposed convolution)")
  if p["batch_group_count"] != 1:
    raise NotImplementedError("in groups of the batch")
  before, after = zip(*p["padding"], strict=True) if p["padding"] else ((), ())
  if min((*before, *after), default=0) < 0:
    raise NotImplementedError("with negative padding")
  out = graph.node(
    "Conv",
    transposed(graph, values[0], numbers.lhs_spec),
    transposed(graph, values[1], numbers.rhs_spec),
    strides=p["window_strides"],
    pads=[*before, *after],
    dilations=p["rhs_dilation"],
    group=p["feature_group_count"],
  )
  return [transposed(graph, out, np.argsort(numbers.out_spec))]


def _dot(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
  ranks = [len(var.aval.shape) for var in eqn.invars]
  if not left_batch and ranks[1] == 2 and len(left) == 1:
    order = [axis for axis in range(ranks[0]) if axis not in left]
    x = transposed(graph, values[0], [*order, *left])
    return [graph.node("MatMul", x, transposed(graph, values[1], [*right, 1 - right[0]]))]
  letters = iter(string.ascii_lowercase)
  of_left = [next(letters) for _ in range(ranks[0])]
  of_right = [next(letters) for _ in range(ranks[1])]
  for one, other in zip((*left_batch, *left), (*right_batch, *right), strict=True):
    of_right[other] = of_left[one]
  batch = [of_left[axis] for axis in left_batch]
  free = [
    letter
    for letters_of, taken in ((of_left, (*left_batch, *left)), (of_right, (*right_batch, *right)))
    for axis, letter in enumerate(letters_of)
    if axis not in taken
  ]
  equation = f"{''.join(of_left)},{''.join(of_right)}->{''.join([*batch, *free])}"
  return [graph.node("Einsum", *values, equation=equation)]


def _pool(kind: str):
  """Returns the operation of a reduction over windows: "max", "min" or "sum"."""

  def operation(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    p = eqn.params
    if any(dilation != 1 for dilation in p["base_dilation"]):
      raise NotImplementedError("with holes between the inputs")
    rank = len(p["window_dimensions"])
    trivial = [
      axis
      for axis in range(rank)
      if p["window_dimensions"][axis] == p["window_strides"][axis] == 1
      and p["padding"][axis] == (0, 0)
    ]
    if len(trivial) < 2:
      raise NotImplementedError("over windows of the batch or of channels")
    first, last = trivial[0], trivial[-1]
    space = [axis for axis in range(rank) if axis not in (first, last)]
    order = [first, last, *space]
    of_space = lambda values: [int(values[axis]) for axis in space]
    window = of_space(p["window_dimensions"])
    pads = [int(p["padding"][axis][side]) for side in (0, 1) for axis in space]
    settings = {"kernel_shape": window, "strides": of_space(p["window_strides"]), "pads": pads}
    dilations = of_space(p["window_dilation"])
    x = transposed(graph, values[0], order)
    if kind == "sum":
      if set(dilations) != {1}:
        raise NotImplementedError("with holes in its windows")
      x = graph.node("AveragePool", x, count_include_pad=1, **settings)
      x = graph.node("Mul", x, np.array(np.prod(window), eqn.invars[0].aval.dtype))
    else:
      x = graph.node("Neg", x) if kind == "min" else x
      x = graph.node("MaxPool", x, dilations=dilations, **settings)
      x = graph.node("Neg", x) if kind == "min" else x
    return [transposed(graph, x, np.argsort(order))]

  return operation


OPERATIONS = {
  "conv_general_dilated": _conv,
  "dot_general": _dot,
  "reduce_window_max": _pool("max"),
  "reduce_window_min": _pool("min"),
  "reduce_window_sum": _pool("sum"),
}
