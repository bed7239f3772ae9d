"""Groups the channels of a network: a group's channels lie equally often on the same axes."""

from collections.abc import Iterator

import numpy as np

from gatprune_jax.channels.graph import FROZEN, Group, Layer, Leaf


class Partition:
  """Partition of elements into classes, which can be split but not merged.

  Args:
    classes: int64 `[size]`, each element's initial class, not negative.

  Attributes:
    of: int64 `[size]`, each element's class.
  """

  def __init__(self, classes: np.ndarray):
    self.of = classes.copy()
    self._next = classes.max(initial=0) + 1

  def split(self, found: np.ndarray) -> None:
    """Splits every class by how often each of its elements occurs in `found`."""
    elements, times = np.unique(found, return_counts=True)
    if elements.size:
      keys = self.of[elements] * (times.max() + 1) + times
      parts, part_of = np.unique(keys, return_inverse=True)
      self.of[elements] = self._next + part_of
      self._next += len(parts)


def group_channels(
  num_channels: int, layers: tuple[Layer, ...], leaves: tuple[Leaf, ...]
) -> tuple[Group, ...]:
  """Returns the groups of a network's channels in network order, all with `has_bypass` False.

  Args:
    num_channels: number of channels.
    layers: the layers, in network order.
    leaves: the variables' arrays, whose axes hold the channel ids.
  """
  alike = Partition(np.zeros(num_channels, np.int64))
  for *_, channels in _axes(leaves):
    alike.split(channels)
  for layer in layers:
    for ids in layer.axes:
      alike.split(ids[ids != FROZEN])
  _, first, number = np.unique(alike.of, return_index=True, return_inverse=True)
  group_of = np.argsort(np.argsort(first))[number]

  members: list[list[tuple[str, int]]] = [[] for _ in first]
  for path, axis, channels in _axes(leaves):
    for group in np.unique(group_of[channels]):
      members[group].append((path, axis))
  names: dict[int, str] = {}
  for layer in layers:
    for name, ids in _produced(layer, leaves):
      for group in np.unique(group_of[ids[ids != FROZEN]]).tolist():
        names.setdefault(group, name)
  return tuple(
    Group(names[group], np.flatnonzero(group_of == group), tuple(places))
    for group, places in enumerate(members)
  )


def _produced(layer: Layer, leaves: tuple[Leaf, ...]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the channel ids of each axis of a layer's result, with a name for those on the axis."""
  yield layer.name, layer.outputs
  for axis in layer.further_outputs:
    yield f"{layer.name} axis {axis}", leaves[layer.kernel].axes[axis]
  for ids in layer.further_axes:  # of a kernel that is not a variable
    yield layer.name, ids


def _axes(leaves: tuple[Leaf, ...]) -> Iterator[tuple[str, int, np.ndarray]]:
  """Yields the path, the axis and the channel ids of every axis of every variable."""
  for leaf in leaves:
    for axis, ids in enumerate(leaf.axes):
      yield leaf.path, axis, ids[ids != FROZEN]
