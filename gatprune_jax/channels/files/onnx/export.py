"""Converts networks to ONNX, and checks the files in onnxruntime."""

from collections.abc import Callable
import os
from typing import Any

import jax
from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.batch import batch_size
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.files.onnx.graph import Graph, Value
from gatprune_jax.channels.files.onnx.operations import OPERATIONS
from gatprune_jax.channels.files.portable import Portable, optional, portable, write
from gatprune_jax.channels.tracing.labelling import CALLS
from gatprune_jax.errors import InputError, first_line

_CHECKED = (1, 3)  # sizes of the batch at which a file for any size is evaluated


def export_onnx(path: str | os.PathLike, small: Compact, x: Any, batch: int | None = None) -> None:
  """Writes `x -> small.apply(small.variables, x)` as one ONNX file, weights included.

  The input is named "x" and the output "y"; of several, each by its path, as in "x/image". What can
  be computed without the input is computed now. Before the file is put in place, `onnx.checker`
  checks it, onnxruntime evaluates it on x at two batch sizes (at the one of a fixed batch), and its
  outputs are compared with JAX's.

  Args:
    path: the file to write, by convention named `*.onnx`; it must not exist yet.
    small: the network.
    x: an example input, of any number of examples.
    batch: number of examples that the file takes; None: any number.

  Raises:
    InputError: if the path exists or cannot be written, the batch is not a positive number, x does
      not show which of its axes is the batch, the network takes no batch of any size, the extra
      "onnx" is not installed, an operation has no equivalent, or onnxruntime computes other outputs
      than JAX.
  """
  batch_size(batch)  # checks it before the work
  network = portable(path, small, x)
  content = convert(network, batch)
  run = runner(content, network)
  for size in _CHECKED if batch is None else (batch,):
    network.check("onnxruntime", run, size)
  write(path, content)


def convert(network: Portable, batch: int | None) -> bytes:
  """Returns the content of an ONNX file.

  Args:
    network: the network.
    batch: number of examples that the file takes; None: any number.

  Raises:
    InputError: if the extra is not installed, or an operation has no equivalent.
  """
  (checker,) = optional(["onnx.checker"], "onnx")
  specs = network.specs(batch_size(batch))
  inputs = {n: (s.shape, s.dtype) for n, s in zip(network.inputs, specs, strict=True)}
  batched = [n for n, has in zip(network.inputs, network.batch.has_axis, strict=True) if has]
  graph = Graph(inputs, None if batch else batched[0])
  try:
    closed = jax.make_jaxpr(network.apply)(*specs)
  except Exception as error:  # a user's function may raise anything for a symbolic batch
    if batch is not None:
      raise
    raise InputError(
      f"the network takes no batch of any size ({first_line(error)}): pass batch=NUMBER"
    ) from error
  values = _run(graph, closed.jaxpr, closed.consts, list(network.inputs))
  avals = [(aval.shape, aval.dtype) for aval in closed.out_avals]
  outputs = {
    name: (value, *form) for name, value, form in zip(network.outputs, values, avals, strict=True)
  }
  model = graph.model(outputs)
  try:
    checker.check_model(model, full_check=True)
  except (checker.ValidationError, RuntimeError) as error:
    raise InputError(
      f"no file was written: onnx's checker refuses it ({first_line(error)})"
    ) from error
  return model.SerializeToString()


def runner(content: bytes, network: Portable) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
  """Loads an ONNX file into onnxruntime, on one thread of the CPU.

  Args:
    content: the content of the file.
    network: the network, for the names of inputs and outputs.

  Returns:
    A function from the leaves of an input to the leaves of the outputs.

  Raises:
    InputError: if the extra is not installed, or onnxruntime refuses the file.
  """
  (onnxruntime,) = optional(["onnxruntime"], "onnx")
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  options.log_severity_level = 3  # errors alone
  try:
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
  except Exception as error:  # onnxruntime has an exception for each kind of refusal
    raise InputError(
      f"no file was written: onnxruntime cannot run it ({first_line(error)})"
    ) from error
  return lambda inputs: session.run(network.outputs, dict(zip(network.inputs, inputs, strict=True)))


def _run(
  graph: Graph, jaxpr: jex_core.Jaxpr, consts: list[Any], inputs: list[Value]
) -> list[Value]:
  """Adds a program to the graph; returns the values of its results."""
  env: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
  env.update(zip(jaxpr.invars, inputs, strict=True))

  def read(var: Any) -> Value:
    if isinstance(var, jex_core.Literal):
      return np.asarray(var.val, var.aval.dtype)
    return env[var]

  for eqn in jaxpr.eqns:
    out = _equation(graph, eqn, [read(var) for var in eqn.invars])
    env.update(zip(eqn.outvars, out, strict=True))
  return [read(var) for var in jaxpr.outvars]


def _equation(graph: Graph, eqn: jex_core.JaxprEqn, values: list[Value]) -> list[Value]:
  """Adds one equation to the graph, unless it can be computed now.

  Raises:
    InputError: if ONNX has no equivalent of the operation.
  """
  name = eqn.primitive.name
  if name in CALLS:
    body = eqn.params[CALLS[name]]
    return _run(graph, getattr(body, "jaxpr", body), getattr(body, "consts", []), values)
  sizes = [size for var in eqn.outvars for size in var.aval.shape]
  known = all(isinstance(value, np.ndarray) for value in values)
  if known and name != "dim_as_value" and all(isinstance(size, int) for size in sizes):
    with jax.ensure_compile_time_eval():
      out = eqn.primitive.bind(*values, **eqn.params)
    return [np.asarray(value) for value in (out if eqn.primitive.multiple_results else [out])]
  if name not in OPERATIONS:
    raise InputError(
      f"no file was written: ONNX has no equivalent of `{name}` here; export the network without it"
    )
  try:
    return OPERATIONS[name](graph, eqn, values)
  except NotImplementedError as error:
    raise InputError(
      f"no file was written: ONNX has no equivalent of `{name}` {error}; export the network "
      "without it"
    ) from error
