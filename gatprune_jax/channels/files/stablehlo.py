"""Networks as portable StableHLO, for compilers and runtimes other than JAX."""

import os
from typing import Any

import jax
from jax import export

from gatprune_jax.channels.compaction import Compact
from gatprune_jax.errors import InputError


def export_stablehlo(
  path: str | os.PathLike, small: Compact, x: Any, batch: int | None = None
) -> None:
  """Writes `x -> small.apply(small.variables, x)` as one StableHLO file, the weights in it.

  The file is a portable artifact: versioned bytecode with compatibility guarantees, that IREE, XLA
  and the StableHLO tools read. With a dynamic batch it holds one call that only XLA knows, the
  `shape_assertion` of the batch size; with a fixed one there is none.

  Args:
    path: the file to write, by custom named `*.mlirbc`; it must not exist yet.
    small: the network.
    x: an example input.
    batch: the size of x's first axis in the exported program. None: dynamic.

  Raises:
    InputError: where the path exists, or the batch is not a positive number.
  """
  if os.path.exists(path):
    raise InputError(f"{os.fspath(path)} exists: choose another path, or remove it first")
  if batch is not None and batch < 1:
    raise InputError(f"batch {batch}: an exported program needs a positive one, or None")
  size = export.symbolic_shape("batch")[0] if batch is None else batch
  exported = export.export(
    jax.jit(lambda x: small.apply(small.variables, x)),
    platforms=("cpu",),
  )(input_spec(x, size))
  partial = f"{os.fspath(path)}.partial"
  with open(partial, "wb") as file:
    file.write(exported.mlir_module_serialized)
  os.rename(partial, path)


def input_spec(x: Any, size: Any) -> Any:
  """The input of a program for batches of a size, like x; in the types that JAX computes with."""
  shapes = jax.eval_shape(lambda x: x, x)  # NumPy's float64 is float32 here, unless JAX keeps it
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), shapes)
