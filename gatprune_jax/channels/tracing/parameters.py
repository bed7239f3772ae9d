"""Decides which of a model's variables are parameters: trained, and counted by `params`."""

from typing import Any

from flax import nnx
from flax.core import FrozenDict
import jax
import jax.numpy as jnp

# Names under which a node of a plain tree holds running statistics, in the way of a batch norm.
_STATISTICS = ({"mean", "var"}, {"running_mean", "running_var"})


def parameter_flags(variables: Any) -> list[bool]:
  """Returns one flag per leaf that is true if the leaf is a parameter.

  In Linen variables, the leaves of the "params" collection are parameters. In any other tree, every
  floating-point array is a parameter, with three exceptions: the variables of an NNX state that are
  no `nnx.Param`s, the arrays of an Equinox `State`, and two arrays of one node that are named
  `mean` and `var`, or `running_mean` and `running_var`.
  """
  if isinstance(variables, (dict, FrozenDict)) and "params" in variables:
    collections = {
      name: jax.tree.map(lambda _, n=name: n == "params", tree) for name, tree in variables.items()
    }
    return jax.tree.leaves(collections)
  is_whole = lambda node: isinstance(node, nnx.Variable) or _is_equinox_state(node)
  nodes = jax.tree.leaves_with_path(variables, is_leaf=is_whole)
  names: dict[Any, set[str]] = {}  # of the leaves below each node
  for path, _ in nodes:
    names.setdefault(path[:-1], set()).add(_name(path))
  flags = []
  for path, node in nodes:
    counted = isinstance(node, nnx.Param) if is_whole(node) else not _is_statistic(path, names)
    flags += [counted and jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(node)]
  return flags


def _is_equinox_state(node: Any) -> bool:
  """Returns whether a node is an `equinox.nn.State`, without importing Equinox."""
  kind = type(node)
  return kind.__name__ == "State" and kind.__module__.split(".")[0] == "equinox"


def _is_statistic(path: tuple[Any, ...], names: dict[Any, set[str]]) -> bool:
  beside = names[path[:-1]]
  return any(_name(path) in pair and pair <= beside for pair in _STATISTICS)


def _name(path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(path[-1:], simple=True)
