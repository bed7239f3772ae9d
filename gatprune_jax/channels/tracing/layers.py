"""Reads the layers of a network, with their channels and costs, from its labelled program."""

from collections.abc import Callable, Iterator, Sequence
import math
from typing import Any, NamedTuple

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, Layer, Leaf
from gatprune_jax.channels.rules import table as rules
from gatprune_jax.channels.rules.axes import Axes
from gatprune_jax.channels.tracing.labelling import CALLS, Program, Step
from gatprune_jax.channels.tracing.liveness import LAYERS, live_equations


class _Hidden(NamedTuple):
  """Convolution or dot product inside an operation without a rule. It has costs but no channels."""

  eqn: Any
  step: Step  # the operation that contains it


def produced(step: Step) -> list[np.ndarray]:
  """Returns the labels of each axis of a layer's output channels, those of the main axis first."""
  where = step.contraction
  out = [] if where.out is None else [where.out]
  return [step.outputs[0][k] for k in (*out, *(axis for _, axis in where.further_out))]


def consumed(step: Step) -> list[np.ndarray]:
  """Returns the labels of each axis of channels that a layer sums over, the main one first.

  A convolution that is cut by whole groups, such as a depthwise one, passes its input channels
  through, so the result is empty. An axis without labels is left out.
  """
  where = step.contraction
  if where.axis is None or where.by_group:
    return []
  axes = (where.axis, *(axis for axis, _ in where.further_in))
  return [labels for k in axes if (labels := step.inputs[where.operand][k]) is not None]


def _beside(step: Step) -> list[np.ndarray]:
  """Returns the labels of each axis that a layer has beside its main input and output channels.

  They are further axes that it sums over, and the result's axes beside the main one: those of
  further output channels, the batch axes of a dot product and axes of its operands over which it
  does not sum, such as the axis of heads, and the batch of a convolution of weights.
  """
  where = step.contraction
  summed = [step.inputs[where.operand][axis] for axis, _ in where.further_in]
  return summed + [
    labels for k, labels in enumerate(step.outputs[0]) if labels is not None and k != where.out
  ]


def read_layers(
  program: Program,
  channel_of: Callable[[np.ndarray], np.ndarray],
  batch: int,
  larger: Callable[[], jex_core.Jaxpr | None],
  leaves: tuple[Leaf, ...],
  leaf_axes: list[Axes],
) -> tuple[Layer, ...]:
  """Returns all convolutions and dot products in execution order.

  A layer in the body of a `scan` counts once per iteration. Of a `cond`, the layers of the
  costliest branch count. A layer in a `while`, whose number of iterations is unknown, counts once.

  Args:
    program: the labelled program.
    channel_of: labels `[size]` -> channel ids `[size]`.
    batch: number of examples in the program's input.
    larger: returns the program for one example more, or None if it does not exist.
    leaves: the variables' arrays.
    leaf_axes: the labels of every axis of every variable.
  """
  items = list(_walk(program, 1))
  return tuple(
    _hidden_layer(index, item, times, examples)
    if isinstance(item, _Hidden)
    else _layer(index, item, times, channel_of, examples, leaves, leaf_axes)
    for index, ((item, times), examples) in enumerate(
      zip(items, _examples(items, batch, larger), strict=True)
    )
  )


def layer_steps(program: Program) -> list[tuple[Step | None, int]]:
  """Returns the step of every layer, in the order of `read_layers`, and how often it is evaluated.

  The step is None for a layer inside an operation without a rule, which has no channels.

  Args:
    program: the labelled program.
  """
  return [(None if isinstance(item, _Hidden) else item, times) for item, times in _walk(program, 1)]


def _examples(
  items: list[tuple[Step | _Hidden, int]], batch: int, larger: Callable[[], jex_core.Jaxpr | None]
) -> list[int]:
  """Returns for each layer the number of examples over which its cost is divided.

  A product of what is the same for all examples is computed once for any batch, so its whole cost
  counts for one example. But weights may be broadcast to the batch before such a product, as the
  queries of a decoder are. Then it costs more for a larger batch, and is divided like any other.
  """
  shared = [getattr(item, "step", item).is_shared for item, _ in items]
  if not any(shared):
    return [batch] * len(items)
  cost = lambda eqn, times: times * _multiply_adds(eqn)
  costs = [cost(item.eqn, times) for item, times in items]
  program = larger()
  above = costs
  if program is not None:
    found = [cost(eqn, times) for eqn, times in _contractions(program, 1)]
    above = found if len(found) == len(costs) else costs
  return [
    1 if is_shared and one == more else batch
    for is_shared, one, more in zip(shared, costs, above, strict=True)
  ]


def _walk(program: Program, times: int) -> Iterator[tuple[Step | _Hidden, int]]:
  """Yields every convolution and dot product, and how often it is evaluated."""
  for step in program.steps:
    if step.body is not None:
      yield from _walk(step.body, times * step.eqn.params.get("length", 1))
    elif step.contraction is not None:
      yield step, times
    elif step.eqn.primitive.name not in rules.RULES:
      for eqn, evaluations in _inside(step.eqn, times):
        yield _Hidden(eqn, step), evaluations


def _contractions(
  jaxpr: jex_core.Jaxpr, times: int, used: Sequence[bool] | None = None
) -> list[tuple[Any, int]]:
  """Returns the convolutions and dot products that a program needs, and how often each is run."""
  return [
    found for live in live_equations(jaxpr, used) for found in _inside(live.eqn, times, live.used)
  ]


def _inside(eqn, times: int, used: Sequence[bool] | None = None) -> list[tuple[Any, int]]:
  """Returns the convolutions and dot products of one equation; see `_contractions`."""
  name = eqn.primitive.name
  if name in LAYERS:
    return [(eqn, times)]
  if name in CALLS:
    body = eqn.params[CALLS[name]]
    return _contractions(getattr(body, "jaxpr", body), times, used)
  if name == "scan":
    times *= eqn.params["length"]
  bodies = [_contractions(body, times) for body in jex_core.jaxprs_in_params(eqn.params)]
  if name == "cond":
    return max(bodies, key=lambda body: sum(n * _multiply_adds(found) for found, n in body))
  return [item for body in bodies for item in body]


def _multiply_adds(eqn) -> int:
  """Returns the multiply-adds for the whole batch, with the whole kernel at every position."""
  outputs = math.prod(eqn.outvars[0].aval.shape)
  if eqn.primitive.name == "conv_general_dilated":
    kernel = eqn.invars[1].aval.shape
    return outputs * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
  contract = eqn.params["dimension_numbers"][0][0]
  return outputs * math.prod(eqn.invars[0].aval.shape[k] for k in contract)


def _hidden_layer(index: int, item: _Hidden, times: int, examples: int) -> Layer:
  frozen = np.full(1, FROZEN)
  return Layer(
    name=f"{item.step.eqn.primitive.name}/{item.eqn.primitive.name}:{index}",
    kind="dense" if item.eqn.primitive.name == "dot_general" else "conv",
    inputs=frozen,
    outputs=frozen,
    macs_per_pair=times * _multiply_adds(item.eqn) / examples,
    positions=1,
    kernel=None,
    kernel_axes=(None, None),
  )


def _layer(
  index: int,
  step: Step,
  times: int,
  channel_of: Callable,
  examples: int,
  leaves: tuple[Leaf, ...],
  leaf_axes: list[Axes],
) -> Layer:
  where, eqn = step.contraction, step.eqn
  out_shape = eqn.outvars[0].aval.shape
  kernel_shape = eqn.invars[where.kernel].aval.shape
  if eqn.primitive.name == "conv_general_dilated":
    kind = "depthwise" if where.by_group else "conv"
    n_in = kernel_shape[eqn.params["dimension_numbers"].rhs_spec[1]]
  else:
    kind, n_in = "dense", 1 if where.kernel_in is None else kernel_shape[where.kernel_in]
  n_out = out_shape[where.out] if where.out is not None else 1
  # In a grouped convolution whose groups all lose the same channels, the input's axis repeats each
  # channel in every group, and the kernel's axis holds each channel once.
  read = next(iter(consumed(step)), None)
  if read is not None and where.kernel_in is not None:
    read = step.inputs[where.kernel][where.kernel_in]
  written = next(iter(produced(step)), None)
  further_axes = tuple(channel_of(labels) for labels in _beside(step))
  num_further_in = math.prod(kernel_shape[k] for _, k in where.further_in)
  num_outputs = examples * n_out * math.prod(map(len, further_axes)) // num_further_in
  kernel_axes, further_outputs = (None, None), ()
  if step.leaf is not None:
    # The kernel may be a transposed variable, so its axes are found by their label arrays.
    axes = [id(labels) for labels in leaf_axes[step.leaf]]
    kernel_axes = tuple(
      None if k is None else axes.index(id(step.inputs[where.kernel][k]))
      for k in (where.kernel_in, where.kernel_out)
    )
    further_outputs = tuple(
      axes.index(id(step.inputs[where.kernel][k])) for k, _ in where.further_out
    )
  return Layer(
    name=leaves[step.leaf].path if step.leaf is not None else f"{eqn.primitive.name}:{index}",
    kind=kind,
    inputs=np.full(n_in, FROZEN) if read is None else channel_of(read),
    outputs=np.full(n_out, FROZEN) if written is None else channel_of(written),
    macs_per_pair=times * _multiply_adds(eqn) / (num_outputs * n_in * num_further_in),
    positions=math.prod(out_shape) // num_outputs,
    kernel=step.leaf,
    kernel_axes=kernel_axes,
    further_axes=further_axes,
    further_outputs=further_outputs,
  )
