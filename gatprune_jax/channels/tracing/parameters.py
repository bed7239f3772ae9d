"""Decides which of a model's variables are parameters: trained, and counted by `params`."""

from typing import Any

from flax import nnx
from flax.core import FrozenDict
import jax
import jax.numpy as jnp


def parameter_flags(variables: Any) -> list[bool]:
  """Returns one flag per leaf that is true if the leaf is a parameter.

  In Linen variables, the leaves of the "params" collection are parameters. In an NNX state, the
  floating-point arrays of its `nnx.Param`s are parameters. In any other tree, every floating-point
  array is a parameter.
  """
  if isinstance(variables, (dict, FrozenDict)) and "params" in variables:
    collections = {
      name: jax.tree.map(lambda _, n=name: n == "params", tree) for name, tree in variables.items()
    }
    return jax.tree.leaves(collections)
  is_variable = lambda node: isinstance(node, nnx.Variable)
  flags = []
  for node in jax.tree.leaves(variables, is_leaf=is_variable):
    counted = not is_variable(node) or isinstance(node, nnx.Param)
    flags += [counted and jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(node)]
  return flags
