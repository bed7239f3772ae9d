"""Saves networks to disk so that they can be loaded and run without the code of their model.

A saved network is a directory, see `directory`, of these files:

  network.stablehlo      the function, exported by `jax.export` for CPU, GPU and TPU, by default for
                         any batch size; it can be differentiated once
  variables.safetensors  the variables under their paths
  program.json           the same function, and the one that trains it, equation by equation, see
                         `programs`; it is missing where they cannot be written down
  manifest.json          checksums; path, name, shape and dtype of every variable, and which of the
                         first network's elements it holds; why program.json is missing

The format before this one had no checksums, no program.json, and kept the variables in an npz file.
It can still be read.
"""

from collections.abc import Callable
import dataclasses
import json
import os
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.batch import batch_size, find_batch
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.files import format_2
from gatprune_jax.channels.files.directory import (
  read_directory,
  read_manifest,
  write_directory,
)
from gatprune_jax.channels.files.exporting import exported
from gatprune_jax.channels.files.locations import without_locations
from gatprune_jax.channels.files.plain import as_plain
from gatprune_jax.channels.files.programs import Recorded, record, run
from gatprune_jax.channels.files.values import NotRecordableError, encode, evaluate_dimension
from gatprune_jax.channels.files.weights import decode_arrays, encode_arrays, unique_names
from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.channels.origin import Origin
from gatprune_jax.channels.tracing.parameters import parameter_flags
from gatprune_jax.errors import InputError, first_line

_FORMAT = 3
_PLATFORMS = ("cpu", "cuda", "tpu")
_NETWORK, _VARIABLES, _PROGRAM = "network.stablehlo", "variables.safetensors", "program.json"


class Training(NamedTuple):
  """What a network needs to be trained further.

  Attributes:
    train_fn: `train_fn(variables, x) -> (outputs, updated variables)`, in train mode; the second
      has all variables.
    trains: for each leaf of the variables, whether gradient steps change it.
  """

  train_fn: Callable[[Any, Any], tuple[Any, Any]]
  trains: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network read back from disk.

  Attributes:
    apply: `apply(variables, x)`, for any batch size unless it was saved for one.
    variables: the variables in the saved tree if that tree consists of dicts, lists and tuples,
      else a dict from leaf path to array. A PRNG key is stored as its key data.
    origin: which elements of its first network it holds; None if it was saved by a format that did
      not say so, or if nothing was cut from it.
    training: its train function, where it was loaded with its programs. Then `apply` is a program
      too, whose layers `trace` sees.
  """

  apply: Callable[..., Any]
  variables: Any
  origin: Origin | None = None
  training: Training | None = None


def _with_derivative(program: export.Exported) -> bytearray:
  """Returns a serialised program with its gradient, or without where it has none, as of a `while`.

  Raises:
    ValueError: the program has arguments or results that cannot be serialised.
  """
  try:
    return program.serialize(vjp_order=1)
  except ValueError:
    return program.serialize(vjp_order=0)


def save_network(
  path: str | os.PathLike,
  small: Compact,
  x: Any,
  batch: int | None = None,
  training: Training | None = None,
) -> None:
  """Writes a network so that `load_network` runs it without its model's code.

  Args:
    path: the directory to write; it must not exist yet, and appears only once it is complete.
    small: the network.
    x: an example input.
    batch: number of examples that the saved network takes; None: any number. See `find_batch`.
    training: how the network is trained. None: a network that is loaded to be trained further
      computes the same in train mode as in eval mode, and changes no statistics.

  Raises:
    InputError: if the path exists or cannot be written, the batch is not a positive number, two
      variables in other containers than dicts, lists and tuples have the same path, x does not show
      which of its axes is the batch, x or the outputs are in such other containers, or the network
      runs at known batch sizes only.
  """
  path = os.fspath(path)
  if os.path.exists(path):
    raise InputError(f"{path} exists: choose another path, or remove it first")
  size = batch_size(batch)
  variables, undo, order = as_plain(small.variables)
  variables_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), variables)
  outputs = jax.eval_shape(small.apply, small.variables, x)
  spec = find_batch(x, outputs).resized(x, size)
  apply = lambda variables, x: small.apply(undo(variables), x)
  program = exported(apply, [variables_spec, spec], _PLATFORMS, batch)
  with without_locations():
    try:
      network = _with_derivative(program)
    except ValueError as error:
      raise InputError(
        "x and the outputs of a network that is saved must be arrays, or dicts, lists and tuples "
        f"of arrays: {first_line(error)}"
      ) from error

  leaves, paths = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)], leaf_paths(variables)
  names = unique_names(paths)
  files = {
    _NETWORK: bytes(network),
    _VARIABLES: encode_arrays(dict(zip(names, leaves, strict=True))),
  }
  manifest = {"format": _FORMAT, "jax": jax.__version__}
  try:
    programs = {"x": _encode_specs(spec), "eval": record(apply, variables_spec, spec)}
    if training is not None:
      programs["train"] = record(_plain_training(training, undo), variables_spec, spec)
    files[_PROGRAM] = json.dumps(programs).encode()
  except Exception as error:  # a user's function may raise anything for a symbolic batch
    what = str(error) if isinstance(error, NotRecordableError) else first_line(error)
    manifest["no_program"] = what
  trains = training.trains if training else parameter_flags(small.variables)
  manifest["variables"] = [
    {"path": path, "name": name, "shape": a.shape, "dtype": a.dtype.name, "trains": trains[i]}
    for path, name, a, i in zip(paths, names, leaves, order, strict=True)
  ]
  if small.origin is not None:
    manifest["origin"] = _encode_origin(small.origin, order)
  write_directory(path, manifest, files)


def load_network(path: str | os.PathLike, with_programs: bool = False) -> Loaded:
  """Reads a network that `save_network` wrote.

  Args:
    path: the directory.
    with_programs: whether its functions are those whose layers can be seen, instead of the compiled
      one; the result then has `training`.

  Raises:
    InputError: if the path is not a complete saved network of this format or of the one before, a
      file was changed since it was written, its variables need 64-bit dtypes that JAX does not
      keep, or programs are asked for and it has none that this version of JAX can evaluate.
  """
  path = os.fspath(path)
  manifest = read_manifest(path)
  if manifest.get("format") == format_2.FORMAT:
    saved = format_2.read(path, manifest)
    specs = saved.manifest["variables"]
    _check_dtypes(path, specs)
    arrays = saved.parsed(format_2.VARIABLES, lambda content: format_2.arrays(content, specs))
  elif manifest.get("format") == _FORMAT:
    saved = read_directory(path, manifest)
    specs = saved.manifest["variables"]
    _check_dtypes(path, specs)
    forms = {spec["name"]: (tuple(spec["shape"]), jnp.dtype(spec["dtype"])) for spec in specs}
    stored = saved.parsed(_VARIABLES, lambda content: decode_arrays(content, forms))
    arrays = list(stored.values())
  else:
    raise InputError(
      f"{path} has format {manifest.get('format')}: this version reads {format_2.FORMAT} and "
      f"{_FORMAT}"
    )
  network = saved.parsed(_NETWORK, lambda content: export.deserialize(bytearray(content)))
  variables_treedef, x_treedef = network.in_tree.children()[0].children()
  variables = jax.tree.unflatten(variables_treedef, [jnp.asarray(array) for array in arrays])
  origin = _decode_origin(saved.manifest.get("origin"))
  if not with_programs:
    return Loaded(jax.jit(network.call), variables, origin)
  if _PROGRAM not in saved.files:
    why = saved.manifest.get("no_program", "it was saved by an earlier version")
    raise InputError(
      f"{path} cannot be trained further: {why}; load it without trainable=True to run it"
    )
  programs = saved.parsed(_PROGRAM, json.loads)
  trains = tuple(spec["trains"] for spec in specs)
  trees = (variables_treedef, x_treedef, network.out_tree)
  loaded = _with_programs(programs, trees, variables, trains, origin)
  example = [jax.ShapeDtypeStruct(_shape(s, 2), dtype) for s, dtype in programs["x"]]
  try:
    jax.eval_shape(loaded.training.train_fn, variables, jax.tree.unflatten(x_treedef, example))
    jax.eval_shape(loaded.apply, variables, jax.tree.unflatten(x_treedef, example))
  except Exception as error:  # primitives of another version may raise anything
    raise InputError(
      f"{path} was saved with jax {saved.manifest['jax']}, and jax {jax.__version__} cannot "
      f"evaluate its program ({first_line(error)}): load it with that version, or without "
      "trainable=True"
    ) from error
  return loaded


def _with_programs(
  programs: dict[str, Any], trees: tuple, variables: Any, trains: tuple[bool, ...], origin: Any
) -> Loaded:
  """Returns the network whose functions are recorded programs."""
  variables_treedef, x_treedef, out_treedef = trees

  def evaluated(program: Recorded, variables: Any, x: Any) -> list[Any]:
    inputs, batch = _checked_inputs(programs["x"], x_treedef, x)
    leaves = jax.tree.leaves(variables)
    if jax.tree.structure(variables) != variables_treedef:
      raise InputError(
        f"the variables have {len(leaves)} arrays in another tree than the "
        f"{variables_treedef.num_leaves} that were saved: pass the loaded network's variables"
      )
    return run(program, [*leaves, *inputs], batch)

  def eval_fn(variables: Any, x: Any) -> Any:
    return jax.tree.unflatten(out_treedef, evaluated(programs["eval"], variables, x))

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    if "train" not in programs:
      return eval_fn(variables, x), variables
    out = evaluated(programs["train"], variables, x)
    num = out_treedef.num_leaves
    outputs = jax.tree.unflatten(out_treedef, out[:num])
    return outputs, jax.tree.unflatten(variables_treedef, out[num:])

  return Loaded(eval_fn, variables, origin, Training(train_fn, trains))


def _plain_training(training: Training, undo: Callable[[Any], Any]) -> Callable:
  """Returns the train function on variables in plain containers."""

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    outputs, updated = training.train_fn(undo(variables), x)
    return outputs, jax.tree.leaves(as_plain(updated).variables)

  return train_fn


def _checked_inputs(specs: list, treedef: Any, x: Any) -> tuple[list[Any], int | None]:
  """Returns the leaves of an input, and the size of its batch.

  Raises:
    InputError: if the input is not of the form that the network was saved with.
  """
  leaves, given = jax.tree.flatten(x)
  if given != treedef:
    raise InputError(f"x is {given}, but the network was saved for inputs like {treedef}")
  leaves = [jnp.asarray(leaf) for leaf in leaves]
  batch = None
  for leaf, (shape, dtype) in zip(leaves, specs, strict=True):
    if shape and isinstance(shape[0], dict) and leaf.ndim:
      batch = leaf.shape[0] if batch is None else batch
    if leaf.shape != _shape(shape, batch) or leaf.dtype != dtype:
      expected = ", ".join("batch" if isinstance(size, dict) else str(size) for size in shape)
      raise InputError(
        f"x has {leaf.dtype} values of shape {leaf.shape}, but the network was saved for {dtype} "
        f"values of shape [{expected}]"
      )
  return leaves, batch


def _encode_specs(x: Any) -> list:
  return [[encode(leaf.shape), leaf.dtype.name] for leaf in jax.tree.leaves(x)]


def _shape(encoded: list, batch: int | None) -> tuple[int, ...]:
  of = lambda size: evaluate_dimension(size["dimension"], batch) if isinstance(size, dict) else size
  return tuple(map(of, encoded))


def _encode_origin(origin: Origin, order: list[int]) -> dict[str, Any]:
  kept = [[axis.tolist() for axis in origin.kept[i]] for i in order]
  return {"shapes": [origin.shapes[i] for i in order], "kept": kept, "costs": origin.costs}


def _decode_origin(content: dict[str, Any] | None) -> Origin | None:
  if content is None:
    return None
  kept = tuple(tuple(np.array(axis, np.int64) for axis in axes) for axes in content["kept"])
  return Origin(tuple(map(tuple, content["shapes"])), kept, content["costs"])


def _check_dtypes(path: str, specs: list[dict[str, Any]]) -> None:
  for spec in specs:
    if jax.dtypes.canonicalize_dtype(spec["dtype"]) != jnp.dtype(spec["dtype"]):
      raise InputError(
        f"{path} holds {spec['path']} as {spec['dtype']}, which JAX does not keep: set "
        "JAX_ENABLE_X64=1"
      )
