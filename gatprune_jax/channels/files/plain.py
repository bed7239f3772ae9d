"""Variables in containers that a file can name: dicts, lists and tuples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.errors import InputError


class Plain(NamedTuple):
  """Variables in plain containers.

  Attributes:
    variables: the variables in their own tree if it consists of dicts, lists and tuples, else a
      dict from leaf path to array. A PRNG key is its key data.
    undo: converts such variables back.
    order: for each leaf of the converted variables, its index among those of the original.
  """

  variables: Any
  undo: Callable[[Any], Any]
  order: list[int]


def as_plain(variables: Any) -> Plain:
  """Converts variables to dicts, lists and tuples of arrays without random keys.

  Raises:
    InputError: if two variables in other containers have the same path.
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

  numbers = range(len(names))
  # The leaves of a dict are in the order of its keys.
  order = list(numbers) if is_plain else sorted(numbers, key=lambda i: names[i])
  return Plain(plain, undo, order)


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_plain(treedef: Any) -> bool:
  """Returns whether a tree consists of dicts, lists, tuples and None."""
  node = treedef.node_data()
  known = node is None or node[0] in (dict, list, tuple, type(None))
  return known and all(map(_is_plain, treedef.children()))
