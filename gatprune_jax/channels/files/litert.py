"""Exports networks to LiteRT, which runs them on phones and microcontrollers."""

from collections.abc import Callable
import os
import re
from types import ModuleType
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.batch import batch_size
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.files.locations import without_locations
from gatprune_jax.channels.files.portable import Portable, optional, portable, write
from gatprune_jax.errors import InputError

_CONVERTER = (
  "litert_converter.mlir.ir",
  "litert_converter.mlir.passmanager",
  "litert_converter.mlir._mlir_libs.converter_api_ext",
)
_SIGNATURE = "serving_default"  # the name that runtimes look for
# How errors of the converter and of the interpreter name an operation.
_REFUSED = re.compile(r"legalize operation '([\w.]+)'|builtin opcode '(\w+)'")
_CONVERTED = ("tfl.", "func.", "arith.", "builtin.")  # dialects that a LiteRT file can hold


def export_tflite(path: str | os.PathLike, small: Compact, x: Any, batch: int = 1) -> None:
  """Writes `x -> small.apply(small.variables, x)` as one LiteRT file, weights included.

  The file has float32 weights and one signature, "serving_default", whose input is named "x" and
  whose output "y"; of several, each by its path, as in "x/image". Before the file is put in place,
  LiteRT's interpreter evaluates it on x, and its outputs are compared with JAX's.

  Args:
    path: the file to write, by convention named `*.tflite`; it must not exist yet.
    small: the network.
    x: an example input, of any number of examples.
    batch: number of examples that the file takes.

  Raises:
    InputError: if the path exists or cannot be written, the batch is not a positive number, x does
      not show which of its axes is the batch, the extra "litert" is not installed, LiteRT has no
      equivalent of an operation, or it computes other outputs than JAX.
  """
  if batch is None:
    raise InputError("batch None: a LiteRT file takes one number of examples, such as 1")
  size = batch_size(batch)
  network = portable(path, small, x)
  content = convert(network, size)
  network.check("LiteRT", runner(content, network), size)
  write(path, content)


def convert(network: Portable, size: int) -> bytes:
  """Returns the content of a LiteRT file.

  Args:
    network: the network.
    size: number of examples that the file takes.

  Raises:
    InputError: if the extra is not installed, or an operation has no equivalent.
  """
  ir, passmanager, converter = optional(_CONVERTER, "litert")
  with without_locations():
    program = jax.jit(network.apply).lower(*network.specs(size)).as_text()
  context = ir.Context()
  converter.prepare_mlir_context(context)
  with context:
    try:
      module = ir.Module.parse(program)
      operation = module.operation
      converter.set_signature(operation, _SIGNATURE, network.inputs, network.outputs)
      passes = passmanager.PassManager()
      converter.run_convert_to_tfl_passes(module, passes, converter.ConvertToTFLConfig())
      passes.run(operation)
      return converter.export_flatbuffer_to_bytes(operation)
    except Exception as error:  # the converter's own classes, which differ between its versions
      raise _no_equivalent(_culprit(str(error)) or ", ".join(_left_over(ir, module))) from error


def runner(content: bytes, network: Portable) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
  """Loads a LiteRT file into its interpreter, on one thread.

  Args:
    content: the content of the file.
    network: the network, for the names of inputs and outputs.

  Returns:
    A function from the leaves of an input to the leaves of the outputs.

  Raises:
    InputError: if the extra is not installed, or the interpreter lacks an operation.
  """
  (interpreter,) = optional(["ai_edge_litert.interpreter"], "litert")
  try:
    run = interpreter.Interpreter(model_content=content, num_threads=1).get_signature_runner()
  except ValueError as error:
    raise _no_equivalent(_culprit(str(error)) or "one of its operations") from error

  def evaluate(inputs: list[np.ndarray]) -> list[np.ndarray]:
    outputs = run(**dict(zip(network.inputs, inputs, strict=True)))
    return [outputs[name] for name in network.outputs]

  return evaluate


def _no_equivalent(operation: str) -> InputError:
  return InputError(
    f"no file was written: LiteRT has no equivalent of {operation}; export the network without it"
  )


def _culprit(message: str) -> str | None:
  """Returns the operation that an error of LiteRT is about; None if it names none."""
  found = _REFUSED.search(message)
  return next(filter(None, found.groups())) if found else None


def _left_over(ir: ModuleType, module: Any) -> list[str]:
  """Returns the operations that the converter left as they were."""
  names: set[str] = set()

  def note(operation: Any) -> Any:
    names.add(operation.name)
    return ir.WalkResult.ADVANCE

  module.operation.walk(note)
  return sorted(name for name in names if not name.startswith(_CONVERTED))
