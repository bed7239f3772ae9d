"""Finds arrays that mirror variables, as the moments of an optimiser and averages of weights do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gatprune_jax.channels.graph import ChannelGraph, Leaf


class Mirror(NamedTuple):
  """An array of a pytree, and the variables that it may mirror."""

  path: str  # the keys that lead to the array, joined by "/"
  shape: tuple[int, ...]
  leaves: tuple[Leaf, ...]  # the variables with that path; more than one if the path is too short
  is_named: bool  # whether the path of the variables has a name, and not only indices of a sequence


def find_mirrors(graph: ChannelGraph, tree: Any) -> list[Mirror]:
  """Returns for each array of a pytree which variables it mirrors, by its path alone.

  An array mirrors a variable if the path of the array ends with the path of the variable. The first
  component of the variable's path, which is the collection in Flax, may be missing. Scalars mirror
  nothing.

  Args:
    graph: the channels that `trace` returned for the variables.
    tree: a pytree, for example of moments or averages.
  """
  owners: dict[str, list[Leaf]] = {}
  for leaf in graph.leaves:
    if rest := leaf.path.partition("/")[2]:
      owners.setdefault(rest, []).append(leaf)
  owners.update({leaf.path: [leaf] for leaf in graph.leaves if leaf.path})
  found = []
  for keys, array in jax.tree.leaves_with_path(tree):
    path = jax.tree_util.keystr(keys, simple=True, separator="/")
    ends = [path.split("/", k)[-1] for k in range(path.count("/") + 1)] if np.shape(array) else []
    end = next((end for end in ends if end in owners), "")
    is_named = not end.replace("/", "").isdigit()
    found.append(Mirror(path, np.shape(array), tuple(owners.get(end, ())), is_named))
  return found


def mirrored_leaves(graph: ChannelGraph, args: Sequence[Any]) -> list[list[Leaf | None]]:
  """Returns for each array of each argument the variable whose path and shape it has, or None."""
  return [
    [
      mirror.leaves[0] if [leaf.shape for leaf in mirror.leaves] == [mirror.shape] else None
      for mirror in find_mirrors(graph, arg)
    ]
    for arg in args
  ]
