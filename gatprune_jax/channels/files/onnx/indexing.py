"""Slices and gathers as nodes of ONNX."""

from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.files.onnx.graph import Graph, Value
from gatprune_jax.channels.files.onnx.shapes import transposed

_BEFORE_FIRST = np.iinfo(np.int64).min  # the end of a slice that runs backwards to the first


def _slice(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  shape, p = eqn.invars[0].aval.shape, eqn.params
  strides = p["strides"] or (1,) * len(shape)
  cut = [
    (axis, *of_axis)
    for axis, of_axis in enumerate(
      zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    )
    if of_axis != (0, shape[axis], 1)
  ]
  if not cut:
    return [values[0]]
  axes, starts, ends, steps = zip(*cut, strict=True)
  return [graph.node("Slice", values[0], *map(graph.sizes, (starts, ends, axes, steps)))]


def _reverse(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  axes = eqn.params["dimensions"]
  constants = [[-1] * len(axes), [_BEFORE_FIRST] * len(axes), axes, [-1] * len(axes)]
  return [graph.node("Slice", values[0], *(np.array(c, np.int64) for c in constants))]


def _dynamic_slice(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  x, *starts = values
  if any(isinstance(start, str) for start in starts):
    raise NotImplementedError("at positions that depend on the input")
  return [_window(graph, eqn, x, starts, eqn.params["slice_sizes"])]


def _window(graph: Graph, eqn: Any, x: Value, starts: list[Any], sizes: Any) -> Value:
  """Returns the part of a value that starts at given positions, which are moved to fit."""
  shape = eqn.invars[0].aval.shape
  cut = [axis for axis, size in enumerate(sizes) if size != shape[axis]]
  if not cut:
    return x
  first = [int(np.clip(starts[axis], 0, shape[axis] - sizes[axis])) for axis in cut]
  last = [start + sizes[axis] for start, axis in zip(first, cut, strict=True)]
  return graph.node("Slice", x, *(np.array(c, np.int64) for c in (first, last, cut)))


def _gather(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  x, indices = values
  numbers, sizes, shape = (
    eqn.params["dimension_numbers"], eqn.params["slice_sizes"], eqn.invars[0].aval.shape
  )  # fmt: skip
  if numbers.operand_batching_dims:
    raise NotImplementedError("with other positions for each example")
  places, dropped = numbers.start_index_map, numbers.collapsed_slice_dims
  if isinstance(indices, np.ndarray) and indices.ndim == 1:
    starts = np.zeros(len(shape), np.int64)
    starts[list(places)] = indices
    part = _window(graph, eqn, x, starts, sizes)
    return [graph.node("Squeeze", part, np.array(dropped)) if dropped else part]
  whole = all(size == shape[axis] for axis, size in enumerate(sizes) if axis not in places)
  if len(places) != 1 or places != dropped or not whole:
    raise NotImplementedError("of windows")
  (axis,) = places
  indices = _checked(indices, eqn, shape[axis])
  if isinstance(indices, str):
    indices = graph.node("Squeeze", indices, np.array([-1]))
  else:
    indices = indices[..., 0]
  taken = graph.node("Gather", x, indices, axis=axis)
  # The node puts the axes of the indices in the place of the axis that they index.
  num = len(eqn.invars[1].aval.shape) - 1
  rank = len(eqn.outvars[0].aval.shape)
  of_indices = [k for k in range(rank) if k not in numbers.offset_dims]
  source = {k: axis + i for i, k in enumerate(of_indices)}
  others = [k for k in range(rank) if not axis <= k < axis + num]
  source.update(zip(numbers.offset_dims, others, strict=True))
  return [transposed(graph, taken, [source[k] for k in range(rank)])]


def _checked(indices: Value, eqn: Any, size: int) -> Value:
  """Returns positions that are all within an axis."""
  mode = eqn.params["mode"]
  if isinstance(indices, np.ndarray):
    within = ((indices >= 0) & (indices < size)).all()
    if mode == jax.lax.GatherScatterMode.CLIP:
      return indices.clip(0, size - 1)
    if within or mode == jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
      return indices
  elif mode == jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
    return indices
  raise NotImplementedError("at positions that may lie outside")


def _top_k(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
  if eqn.params.get("axis", -1) not in (-1, len(eqn.invars[0].aval.shape) - 1):
    raise NotImplementedError("along another axis than the last")
  count = np.array([eqn.params["k"]], np.int64)
  largest, index = graph.node("TopK", values[0], count, outputs=2)
  return [largest, graph.node("Cast", index, to=graph.type_of(eqn.outvars[1].aval.dtype))]


OPERATIONS = {
  "dynamic_slice": _dynamic_slice,
  "gather": _gather,
  "rev": _reverse,
  "slice": _slice,
  "top_k": _top_k,
}
