"""Saves networks to disk so that they can be loaded and run without the code of their model.

A saved network is a directory of three files. `network.stablehlo` holds the function, exported by
`jax.export` for CPU, GPU and TPU, by default for any batch size; it can be differentiated once.
`variables.npz` holds the bytes of the leaves. `manifest.json` holds their paths, shapes and dtypes.
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

from gatprune_jax.channels.batch import batch_size, find_batch
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.errors import InputError, first_line

_FORMAT = 2
_PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network read back from disk.

  Attributes:
    apply: `apply(variables, x)`, for any batch size unless it was saved for one.
    variables: the variables in the saved tree if that tree consists of dicts, lists and tuples,
      else a dict from leaf path to array. A PRNG key is stored as its key data.
  """

  apply: Callable[..., Any]
  variables: Any


def save(path: str | os.PathLike, small: Compact, x: Any, batch: int | None = None) -> None:
  """Writes a network so that `load` runs it without its model's code.

  Args:
    path: the directory to write; it must not exist yet, and appears only once it is complete.
    small: the network.
    x: an example input.
    batch: number of examples that the saved network takes; None: any number. See `find_batch`.

  Raises:
    InputError: if the path exists, the batch is not a positive number, two variables have the same
      path, x does not show which of its axes is the batch, or x or the outputs are in containers
      other than dicts, lists and tuples.
  """
  path = os.fspath(path)
  if os.path.exists(path):
    raise InputError(f"{path} exists: choose another path, or remove it first")
  size = batch_size(batch)
  variables, undo = _as_plain(small.variables)
  variables_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), variables)
  apply = jax.jit(lambda variables, x: small.apply(undo(variables), x))
  outputs = jax.eval_shape(small.apply, small.variables, x)
  spec = find_batch(x, outputs).resized(x, size)
  exported = export.export(apply, platforms=_PLATFORMS)(variables_spec, spec)
  try:
    network = exported.serialize(vjp_order=1)
  except ValueError as error:
    raise InputError(
      "x and the outputs of a network that is saved must be arrays, or dicts, lists and tuples of "
      f"arrays: {first_line(error)}"
    ) from error

  leaves, names = jax.tree.leaves(variables), leaf_paths(variables)
  # The npz format has no bfloat16, so every leaf is stored as its raw bytes.
  arrays = [np.frombuffer(np.asarray(leaf).tobytes(), np.uint8) for leaf in leaves]
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
      file.write(network)
    np.savez(os.path.join(partial, "variables.npz"), *arrays)
    with open(os.path.join(partial, "manifest.json"), "w") as file:
      json.dump(manifest, file, indent=1)
    os.rename(partial, path)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def load(path: str | os.PathLike) -> Loaded:
  """Reads a network that `save` wrote.

  Raises:
    InputError: if the path is not a complete saved network of this format, or its variables need
      64-bit dtypes that JAX does not keep.
  """
  path = os.fspath(path)
  manifest = _parsed(path, "manifest.json", lambda file: dict(json.load(file)))
  if manifest.get("format") != _FORMAT:
    raise InputError(f"{path} has format {manifest.get('format')}, this version reads {_FORMAT}")
  for spec in manifest.get("variables", ()):
    if jax.dtypes.canonicalize_dtype(spec["dtype"]) != jnp.dtype(spec["dtype"]):
      raise InputError(
        f"{path} holds {spec['path']} as {spec['dtype']}, which JAX does not keep: set "
        "JAX_ENABLE_X64=1"
      )
  exported = _parsed(
    path, "network.stablehlo", lambda file: export.deserialize(bytearray(file.read()))
  )
  leaves = _parsed(path, "variables.npz", lambda file: _leaves(file, manifest["variables"]))
  args_treedef = exported.in_tree.children()[0]
  variables = jax.tree.unflatten(args_treedef.children()[0], leaves)
  return Loaded(jax.jit(exported.call), variables)


def _parsed(path: str, name: str, parse: Callable[[BinaryIO], Any]) -> Any:
  """Returns what `parse` returns for one file of a saved network."""
  try:
    with open(os.path.join(path, name), "rb") as file:
      return parse(file)
  except Exception as error:  # zip, JSON and FlatBuffers raise different exceptions
    raise InputError(
      f"{path} is not a saved network: {name} cannot be read ({type(error).__name__}: {error}); "
      "choose a directory that save wrote, with all of its files whole"
    ) from error


def _leaves(file: BinaryIO, specs: list[dict[str, Any]]) -> list[jax.Array]:
  """Returns the variables in the manifest's order, decoded from their bytes."""
  with np.load(file) as stored:
    return [
      jnp.asarray(np.frombuffer(stored[f"arr_{i}"], jnp.dtype(v["dtype"])).reshape(v["shape"]))
      for i, v in enumerate(specs)
    ]


def _as_plain(variables: Any) -> tuple[Any, Callable[[Any], Any]]:
  """Converts variables to the containers described in `Loaded`.

  Returns:
    The converted variables, and a function that converts them back.
  """
  leaves, treedef = jax.tree.flatten(variables)
  keys = {i: jax.random.key_impl(leaf) for i, leaf in enumerate(leaves) if _is_key(leaf)}
  data = [jax.random.key_data(leaf) if i in keys else leaf for i, leaf in enumerate(leaves)]
  names = leaf_paths(variables)
  if not (is_plain := _is_plain(treedef)) and len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise InputError(f"two variables have the path {twice}: a saved network needs one for each")
  plain = jax.tree.unflatten(treedef, data) if is_plain else dict(zip(names, data, strict=True))

  def undo(plain: Any) -> Any:
    data = jax.tree.leaves(plain) if is_plain else [plain[name] for name in names]
    wrapped = (
      jax.random.wrap_key_data(leaf, impl=keys[i]) if i in keys else leaf
      for i, leaf in enumerate(data)
    )
    return jax.tree.unflatten(treedef, wrapped)

  return plain, undo


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_plain(treedef: Any) -> bool:
  """Returns whether a tree consists of dicts, lists, tuples and None."""
  node = treedef.node_data()
  known = node is None or node[0] in (dict, list, tuple, type(None))
  return known and all(map(_is_plain, treedef.children()))
