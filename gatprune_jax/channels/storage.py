"""Networks on disk that reload and run without the code of their model.

A saved network is a directory: `network.stablehlo` (the function, from `jax.export`, for CPU, GPU
and TPU, with a symbolic batch size, differentiable once), `variables.npz` (the leaves by path) and
`manifest.json`.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import shutil
from typing import Any, BinaryIO

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.errors import InputError

_FORMAT = 1
_PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network read back from disk: `apply(variables, x)`, any batch size."""

  apply: Callable[..., Any]
  variables: Any


def save(path: str | os.PathLike, small: Compact, x: Any) -> None:
  """Writes a network so that `load` runs it without its model's code.

  Args:
    path: a directory; it must not exist yet, and appears only once it is complete.
    small: the network.
    x: an example input; its first axis becomes a symbolic batch size.

  Raises:
    InputError: where the path exists.
  """
  path = os.fspath(path)
  if os.path.exists(path):
    raise InputError(f"{path} exists: choose another path, or remove it first")
  (batch,) = export.symbolic_shape("batch")
  x_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), x)
  variables_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), small.variables)
  exported = export.export(small.apply, platforms=_PLATFORMS)(variables_spec, x_spec)

  leaves, names = jax.tree.leaves(small.variables), leaf_paths(small.variables)
  # Under the name "npz" knows no bfloat16, so every leaf is stored as its bytes.
  arrays = {
    name: np.frombuffer(np.asarray(leaf).tobytes(), np.uint8)
    for name, leaf in zip(names, leaves, strict=True)
  }
  manifest = {
    "format": _FORMAT,
    "jax": jax.__version__,
    "variables": [
      {"path": name, "shape": leaf.shape, "dtype": leaf.dtype.name}
      for name, leaf in zip(names, leaves, strict=True)
    ],
  }
  partial = f"{path.rstrip(os.sep)}.partial"
  shutil.rmtree(partial, ignore_errors=True)
  os.makedirs(partial)
  try:
    with open(os.path.join(partial, "network.stablehlo"), "wb") as file:
      file.write(exported.serialize(vjp_order=1))
    np.savez(os.path.join(partial, "variables.npz"), **arrays)
    with open(os.path.join(partial, "manifest.json"), "w") as file:
      json.dump(manifest, file, indent=1)
    os.rename(partial, path)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def load(path: str | os.PathLike) -> Loaded:
  """Reads what `save` wrote.

  Raises:
    InputError: where the path is not a complete saved network of this format.
  """
  path = os.fspath(path)
  manifest = _parsed(path, "manifest.json", lambda file: dict(json.load(file)))
  if manifest.get("format") != _FORMAT:
    raise InputError(f"{path} has format {manifest.get('format')}, this version reads {_FORMAT}")
  exported = _parsed(
    path, "network.stablehlo", lambda file: export.deserialize(bytearray(file.read()))
  )
  leaves = _parsed(path, "variables.npz", lambda file: _leaves(file, manifest["variables"]))
  args_treedef = exported.in_tree.children()[0]
  variables = jax.tree.unflatten(args_treedef.children()[0], leaves)
  return Loaded(jax.jit(exported.call), variables)


def _parsed(path: str, name: str, parse: Callable[[BinaryIO], Any]) -> Any:
  """What `parse` makes of one file of a saved network."""
  try:
    with open(os.path.join(path, name), "rb") as file:
      return parse(file)
  except Exception as error:  # zip, JSON and FlatBuffers each fail in ways of their own
    raise InputError(
      f"{path} is not a saved network: {name} cannot be read ({type(error).__name__}: {error}); "
      "choose a directory that save wrote, with all of its files whole"
    ) from error


def _leaves(file: BinaryIO, specs: list[dict[str, Any]]) -> list[jax.Array]:
  """The variables of the manifest, from their bytes."""
  with np.load(file) as stored:
    return [
      jnp.asarray(np.frombuffer(stored[v["path"]], jnp.dtype(v["dtype"])).reshape(v["shape"]))
      for v in specs
    ]
