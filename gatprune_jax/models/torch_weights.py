"""Loads weights of PyTorch checkpoints as variables of the networks of this package."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.errors import InputError
from gatprune_jax.models.torch_file import read_torch
from gatprune_jax.models.torch_names import TORCH_NAMES, recognise, tensor_name

# Number of axes -> axes of a kernel in PyTorch's order: HWIO -> OIHW, [in, out] -> [out, in].
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}


def load_torch(
  path: str, variables: Any, names: str | Callable[[tuple[str, ...]], str] | None = None
) -> Any:
  """Returns the network's variables with the values of a PyTorch checkpoint.

  The networks of this package pad, and flatten channels first, as PyTorch does, so their logits
  agree with PyTorch's. Any other network must do the same, because shapes do not show in which
  order a dense layer reads a feature map. PyTorch itself is not needed, and no code in the file is
  run; see `read_torch` for the formats.

  Args:
    path: the file. All names in the file may start with "module.". Names that end in
      `num_batches_tracked` are ignored.
    variables: the network's tree of arrays or `jax.ShapeDtypeStruct`, with `params` and
      `batch_stats`, as from `jax.eval_shape(module.init, ...)`. Only shapes and dtypes are used.
    names: a key of `TORCH_NAMES`, a function from a Flax module's path to PyTorch's name of the
      module, or None for the scheme that fits the file best.

  Returns:
    The tree of `variables`, with arrays of its shapes and dtypes.

  Raises:
    InputError: if the file cannot be read, the scheme is unknown, or tensors are missing, left
      over, of other shapes or not floating-point. The error lists every such tensor.
  """
  if isinstance(names, str) and names not in TORCH_NAMES:
    raise InputError(f"names {names!r} is unknown: choose one of {', '.join(TORCH_NAMES)}")
  stored = _without_bookkeeping(read_torch(path))
  flat, tree = jax.tree.flatten_with_path(variables)
  leaves = {tuple(key.key for key in keys): leaf for keys, leaf in flat}
  if names is None:
    names = recognise(stored, leaves)
  elif isinstance(names, str):
    names = TORCH_NAMES[names]
  named = {tensor_name(names, path): leaf for path, leaf in leaves.items()}
  _check_fit(path, stored, named)
  return jax.tree.unflatten(tree, [_converted(stored[name], leaf) for name, leaf in named.items()])


def _without_bookkeeping(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  if all(name.startswith("module.") for name in stored):  # saved with DataParallel
    stored = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
  return {n: t for n, t in stored.items() if not n.endswith("num_batches_tracked")}


def _torch_shape(leaf: Any) -> tuple[int, ...]:
  return tuple(leaf.shape[axis] for axis in _TO_TORCH.get(leaf.ndim, range(leaf.ndim)))


def _check_fit(path: str, stored: dict[str, np.ndarray], named: dict[str, Any]) -> None:
  problems = [f"{name} is missing" for name in sorted(named.keys() - stored.keys())]
  problems += [f"{name} is left over" for name in sorted(stored.keys() - named.keys())]
  for name in sorted(named.keys() & stored.keys()):
    if stored[name].shape != _torch_shape(named[name]):
      shapes = f"{stored[name].shape} where the network has {_torch_shape(named[name])}"
      problems.append(f"{name} has shape {shapes}")
    elif not jnp.issubdtype(stored[name].dtype, jnp.floating):
      problems.append(f"{name} has dtype {stored[name].dtype}, which is not floating-point")
  if problems:
    raise InputError(f"checkpoint {path} is of another network: {'; '.join(problems)}")


def _converted(tensor: np.ndarray, leaf: Any) -> jax.Array:
  if tensor.ndim in _TO_TORCH:
    tensor = tensor.transpose(np.argsort(_TO_TORCH[tensor.ndim]))
  return jnp.asarray(tensor.astype(leaf.dtype))
