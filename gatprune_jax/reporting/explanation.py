"""What became of every layer and channel of a network: the typed file `explained.json` of a run.

A run writes the file when it has chosen its mask, and the report reads it. Its JSON is that of the
dataclasses here: an object with the fields of `Explanation`, whose lists hold objects with the
fields of `LayerOutcome` and `GroupOutcome`.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from gatprune_jax.channels import FROZEN, ChannelGraph, Compensation, explained, ranks
from gatprune_jax.errors import InputError
from gatprune_jax.runs import workdir as runs

EXPLANATION = "explained.json"


@dataclasses.dataclass(frozen=True)
class GroupOutcome:
  """The channels of one group; the lists have one entry for each channel.

  Attributes:
    name: name of the group, the first layer that produces its channels.
    kept: whether the channel is kept.
    place: place of the channel in its group by magnitude, 0 for the largest L1 norm.
    explained: share of the channel's energy that the other kept channels explain, in [0, 1], see
      `gatprune_jax.channels.explained`; None where no compensated layer reads the channel.
  """

  name: str
  kept: list[bool]
  place: list[int]
  explained: list[float | None]

  @property
  def width(self) -> int:
    """Number of channels of the dense network."""
    return len(self.kept)

  @property
  def num_kept(self) -> int:
    """Number of channels that are kept."""
    return sum(self.kept)

  def kept_by_magnitude(self, channel: int) -> bool:
    """Whether the channel is one of the `num_kept` channels with the largest L1 norms."""
    return self.place[channel] < self.num_kept


@dataclasses.dataclass(frozen=True)
class LayerOutcome:
  """One convolution or dot product.

  Attributes:
    name: path of its kernel.
    kind: "conv", "depthwise" or "dense".
    reads: indices of the groups whose channels it reads.
    writes: indices of the groups whose channels it produces.
    macs: multiply-adds of the dense network's layer for one example.
    kept_macs: those that are left.
  """

  name: str
  kind: str
  reads: list[int]
  writes: list[int]
  macs: float
  kept_macs: float


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What became of a network, in network order.

  Attributes:
    groups: the groups of channels.
    layers: the layers.
  """

  groups: list[GroupOutcome]
  layers: list[LayerOutcome]


def explain(
  graph: ChannelGraph, mask: np.ndarray, magnitude: np.ndarray, compensation: Compensation
) -> Explanation:
  """Returns what a mask makes of a network.

  Args:
    graph: the dense network's channels.
    mask: bool `[N]`, 1 = keep.
    magnitude: L1 norm of every channel's filter, float `[N]`.
    compensation: the matrices by which channels explain each other.
  """
  mask = np.asarray(mask, bool)
  share, with_frozen = explained(compensation, mask), np.append(mask, True)
  groups = []
  for group in graph.groups:
    ids = group.channels
    of_group = [None if np.isnan(value) else round(value, 6) for value in share[ids].tolist()]
    places = ranks(magnitude[ids]).tolist()
    groups.append(GroupOutcome(group.name, mask[ids].tolist(), places, of_group))

  def groups_on(ids: np.ndarray) -> list[int]:
    return np.unique(graph.group_of[ids[ids != FROZEN]]).tolist()

  layers = []
  for layer in graph.layers:
    dense = layer.macs_per_pair * np.prod([float(len(ids)) for ids in layer.axes])
    kept = layer.macs_per_pair * np.prod([float(with_frozen[ids].sum()) for ids in layer.axes])
    reads, writes = groups_on(layer.inputs), groups_on(layer.outputs)
    layers.append(LayerOutcome(layer.name, layer.kind, reads, writes, float(dense), float(kept)))
  return Explanation(groups, layers)


def write_explanation(path: str, explanation: Explanation) -> None:
  """Writes the file, which is complete or absent."""
  runs.write_json(path, dataclasses.asdict(explanation))


def read_explanation(path: str) -> Explanation | None:
  """Returns what `write_explanation` wrote, or None where there is no such file.

  Raises:
    InputError: where the file cannot be read, or is damaged.
  """
  return _made(runs.read_json(path), path) if os.path.exists(path) else None


def _made(stored: Any, path: str) -> Explanation:
  try:
    return Explanation(
      [GroupOutcome(**group) for group in stored["groups"]],
      [LayerOutcome(**layer) for layer in stored["layers"]],
    )
  except (TypeError, KeyError) as error:
    raise InputError(f"{path} is damaged ({error}): remove it and make the report again") from error
