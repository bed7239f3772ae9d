"""Exports networks as portable StableHLO, for compilers and runtimes other than JAX."""

import os
from typing import Any

import jax

from gatprune_jax.channels.batch import batch_size, find_batch
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.files.exporting import exported
from gatprune_jax.channels.files.portable import write
from gatprune_jax.errors import InputError


def export_stablehlo(
  path: str | os.PathLike, small: Compact, x: Any, batch: int | None = None
) -> None:
  """Writes `x -> small.apply(small.variables, x)` as one StableHLO file, weights included.

  The file is a portable artifact: versioned bytecode with compatibility guarantees, which IREE, XLA
  and the StableHLO tools can read. With a dynamic batch, the program contains one call that only
  XLA supports, the `shape_assertion` of the batch size. With a fixed batch, the program has none.

  Args:
    path: the file to write, by convention named `*.mlirbc`; it must not exist yet.
    small: the network.
    x: an example input.
    batch: size of the batch in the exported program; None for a dynamic size. See `find_batch`.

  Raises:
    InputError: if the path exists or cannot be written, the batch is not a positive number, x does
      not show which of its axes is the batch, or the network runs at known batch sizes only.
  """
  if os.path.exists(path):
    raise InputError(f"{os.fspath(path)} exists: choose another path, or remove it first")
  size = batch_size(batch)
  apply = lambda x: small.apply(small.variables, x)
  spec = find_batch(x, jax.eval_shape(apply, x)).resized(x, size)
  write(path, exported(apply, [spec], ["cpu"], batch).mlir_module_serialized)
