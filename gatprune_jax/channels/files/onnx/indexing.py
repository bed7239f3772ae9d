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
  others = [axis for axis in range(len(shape)) if axis not in places]
  if set(places) != set(dropped) or any(sizes[axis] != shape[axis] for axis in others):
    raise NotImplementedError("of windows")
  indices = _checked(indices, eqn, [shape[axis] for axis in places])
  if isinstance(indices, np.ndarray) and (lists := _separate(indices)) is not None:
    for axis, positions in zip(places, lists, strict=True):
      x = _take(graph, x, positions, axis, shape[axis])
    source = _order(eqn, places, others)
  else:
    # The node takes elements along the first axes, and puts the axes of the indices before others.
    x = graph.node("GatherND", transposed(graph, x, [*places, *others]), _int64(graph, indices))
    num = len(eqn.invars[1].aval.shape) - 1
    source = _order(eqn, range(num), range(num, num + len(others)))
  return [transposed(graph, x, source)]


def _order(eqn: Any, of_indices: Any, of_others: Any) -> list[int]:
  """Returns for each axis of a gather's result the axis of a value from which it is taken.

  Args:
    eqn: the gather.
    of_indices: the value's axis for each axis of the indices.
    of_others: the value's axis for each axis of the operand that is not indexed, in order.
  """
  offsets = eqn.params["dimension_numbers"].offset_dims
  indexed, others = iter(of_indices), iter(of_others)
  rank = len(eqn.outvars[0].aval.shape)
  return [next(others) if axis in offsets else next(indexed) for axis in range(rank)]


def _separate(indices: np.ndarray) -> list[np.ndarray] | None:
  """Returns positions `[size]` for each axis if indices `[*sizes, k]` are all their combinations.

  Returns None if they are not.
  """
  if indices.ndim != indices.shape[-1] + 1 or not indices.size:
    return None
  lists = []
  for axis in range(indices.shape[-1]):
    along = np.moveaxis(indices[..., axis], axis, 0)
    along = along.reshape(len(along), -1)
    if (along != along[:, :1]).any():
      return None
    lists.append(along[:, 0].astype(np.int64))
  return lists


def _take(graph: Graph, x: Value, positions: np.ndarray, axis: int, size: int) -> Value:
  """Returns the elements at some positions of an axis, as a slice where they are evenly spaced."""
  steps = set(np.diff(positions).tolist())
  if len(steps) > 1 or min(steps, default=1) < 1:
    return graph.node("Gather", x, positions, axis=axis)
  step = steps.pop() if steps else 1
  if len(positions) == size:
    return x
  parts = ([positions[0]], [positions[-1] + 1], [axis], [step])
  return graph.node("Slice", x, *(np.array(part, np.int64) for part in parts))


def _int64(graph: Graph, indices: Value) -> Value:
  if isinstance(indices, np.ndarray):
    return indices.astype(np.int64)
  return graph.node("Cast", indices, to=graph.type_of(np.int64))


def _checked(indices: Value, eqn: Any, sizes: list[int]) -> Value:
  """Returns positions `[..., k]` that are all within k axes of the given sizes."""
  mode = eqn.params["mode"]
  if isinstance(indices, np.ndarray):
    within = ((indices >= 0) & (indices < sizes)).all()
    if mode == jax.lax.GatherScatterMode.CLIP:
      return indices.clip(0, np.array(sizes) - 1)
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
