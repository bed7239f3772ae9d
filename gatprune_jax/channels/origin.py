"""Where a network that was cut comes from: later cuts are counted from its first network."""

import dataclasses
import functools
from typing import Any

import numpy as np

from gatprune_jax.channels.costs.deployment import Deployment
from gatprune_jax.channels.costs.resources import MEASURED, RESOURCES
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
  """The first network of a chain of cuts, and which of its elements are left.

  Attributes:
    shapes: the first network's shape of each variable, in the order of `jax.tree.leaves`.
    kept: for each variable and each of its axes, the positions of the first network's axis that
      are left, in order, int64 `[size]`.
    first: the first network's channels; where only its costs are known, `costs`.
  """

  shapes: tuple[tuple[int, ...], ...]
  kept: tuple[tuple[np.ndarray, ...], ...]
  first: ChannelGraph | dict[str, float]

  @functools.cached_property
  def costs(self) -> dict[str, float]:
    """{resource: cost of the first network}, of every resource of `RESOURCES` that is counted.

    Costs that depend on the deployment are those of its defaults.
    """
    if not isinstance(self.first, ChannelGraph):
      return self.first
    everything, deployment = np.ones(self.first.num_channels), Deployment()
    return {
      name: float(make(self.first, deployment).cost(everything))
      for name, make in RESOURCES.items()
      if name not in MEASURED
    }

  def mask(self, graph: ChannelGraph) -> np.ndarray:
    """Returns which channels of the first network are left, bool `[num_channels]`.

    Args:
      graph: the channels of the first network.

    Raises:
      InputError: if the graph is of a network with other shapes.
    """
    shapes = tuple(leaf.shape for leaf in graph.leaves)
    if shapes != self.shapes:
      raise InputError(
        f"the graph has {len(shapes)} variables of other shapes than the first network's "
        f"{len(self.shapes)}: trace the network that was cut first"
      )
    mask = np.zeros(graph.num_channels + 1, bool)  # the last entry takes the frozen elements
    for leaf, positions in zip(graph.leaves, self.kept, strict=True):
      for ids, kept in zip(leaf.axes, positions, strict=True):
        mask[ids[kept]] = True
    return mask[:-1]


def whole(graph: ChannelGraph) -> Origin:
  """Returns the origin of a network that nothing was cut from.

  Args:
    graph: the network's channels.
  """
  return Origin(
    shapes=tuple(leaf.shape for leaf in graph.leaves),
    kept=tuple(tuple(map(np.arange, leaf.shape)) for leaf in graph.leaves),
    first=graph,
  )


def cut(origin: Origin | None, graph: ChannelGraph, mask: Any) -> Origin:
  """Returns the origin of a network after one more cut.

  Args:
    origin: that of the network before this cut; None if it is the first network.
    graph: the channels of the network before this cut.
    mask: `[num_channels]` of the graph, 1 = keep.
  """
  before = whole(graph) if origin is None else origin
  keep = np.append(np.asarray(mask, bool), True)  # channel id -1 (frozen) indexes this entry
  kept = tuple(
    tuple(positions[keep[ids]] for positions, ids in zip(axes, leaf.axes, strict=True))
    for axes, leaf in zip(before.kept, graph.leaves, strict=True)
  )
  return dataclasses.replace(before, kept=kept)
