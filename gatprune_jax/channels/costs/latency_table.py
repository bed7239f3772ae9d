"""Latency tables: how long the layers of a network take as functions of their kept widths.

A table is a JSON file, so that it can be measured here and used elsewhere, or written by a program
that measures on another device, such as a phone. Times are in seconds, widths are numbers of
elements:

    {"format": "gatprune_jax latency table", "version": 1,
     "device": "cpu AMD EPYC", "threads": 1, "batch": 1, "block": 8,
     "date": "2026-11-28T20:15:00+00:00", "versions": {"jax": "0.10.2"},
     "constant": 2.1e-05, "factor": 1.04,
     "shapes": [{"what": "conv [1, 16, 16, 32] [3, 3, 32, 64]",
                 "widths": [[1, 8, 16, 32], [1, 16, 32, 64]],
                 "seconds": [[...], [...], [...], [...]]}],
     "layers": [{"name": "params/conv/kernel", "kind": "conv", "shape": 0, "times": 1}]}

* `device`, `threads`, `date` and `versions` say where the times are from. `batch` is the number of
  examples in a forward pass.
* The device computes channels in blocks of `block`. A group that keeps a number of channels that is
  neither a multiple of it nor the whole group counts with the next such number, or within the first
  block with the next measured one; `block` 1 lets every number count as itself.
* A shape is what one or more equal layers cost. It has an axis of widths for each axis of the layer
  from which channels can be removed, in the order of `Layer.cut_axes`: first that of the inputs,
  then that of the outputs, if both can lose channels. Widths grow, and the last is the dense one.
  `seconds[i][j]` is the time of the layer, with the element-wise operations that follow it, at
  `widths[0][i]` and `widths[1][j]`, and the time between widths is found on the lines between
  them. `what` is for readers.
* `layers` has the network's layers from which channels can be removed, in the order of the forward
  pass, each with its shape and with the number of times that a forward pass evaluates it.
* A forward pass takes constant + factor * sum over layers of times * seconds. The constant stands
  for what no mask changes, and the factor for what layers cost beside each other and not alone.

A network that was cut from the table's one has the same layers with smaller widths, so the table
holds for it as well. Pruning in rounds uses one table for all rounds.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import math
import os
from typing import Any

import numpy as np

from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.whole_files import whole_file

_FORMAT, _VERSION = "gatprune_jax latency table", 1


@dataclasses.dataclass(frozen=True, eq=False)
class TimedShape:
  """What layers of one shape cost.

  Attributes:
    what: the layer in words, for readers.
    widths: for each of D axes, the measured numbers of elements, which grow; the last is the dense
      one.
    seconds: the time at every combination of widths, float64, with D axes.
  """

  what: str
  widths: tuple[tuple[int, ...], ...]
  seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class TimedLayer:
  """A layer of the network.

  Attributes:
    name: `Layer.name`.
    kind: `Layer.kind`.
    shape: index of its shape.
    times: how often a forward pass evaluates it.
  """

  name: str
  kind: str
  shape: int
  times: int


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
  """How long the layers of a network take; the module's documentation has the meaning of a field.

  Attributes:
    device: on which device the times were measured.
    threads: number of threads of the processor; 1 on an accelerator too.
    batch: number of examples in a forward pass.
    block: number of channels that the device computes together.
    date: when they were measured, in the form of ISO 8601.
    versions: {name: version} of the software.
    constant: seconds of a forward pass that no mask changes.
    factor: by which the sum over layers is multiplied.
    shapes: the distinct shapes of layers.
    layers: the layers from which channels can be removed, in network order.
  """

  device: str
  threads: int
  batch: int
  block: int
  date: str
  versions: Mapping[str, str]
  constant: float
  factor: float
  shapes: Sequence[TimedShape]
  layers: Sequence[TimedLayer]

  @property
  def dense_seconds(self) -> float:
    """The seconds of a forward pass of the network that the table was measured of."""
    layers = (self.factor * of.times * self.shapes[of.shape].seconds.flat[-1] for of in self.layers)
    # In this order of the sum, it is to the last bit what `Interpolated` says of that network.
    return float(self.constant + sum(layers))

  def check_network(self, graph: ChannelGraph) -> None:
    """Raises InputError unless the graph is of the table's network, or of one cut from it."""
    own = [(layer, layer.cut_axes) for layer in graph.layers if layer.cut_axes]
    if len(own) != len(self.layers):
      raise InputError(
        f"the latency table is of a network with {len(self.layers)} layers that can lose channels, "
        f"but this network has {len(own)}: give a table of this network"
      )
    for (layer, axes), timed in zip(own, self.layers, strict=True):
      there = (timed.name, timed.kind, *(axis[-1] for axis in self.shapes[timed.shape].widths))
      here = (layer.name, layer.kind, *map(len, axes))
      same = there[:2] == here[:2] and len(there) == len(here)
      if not same or any(wide < own for wide, own in zip(there[2:], here[2:], strict=True)):
        raise InputError(
          f"the latency table is of another network: it has the layer {_shown(there)} where this "
          f"network has {_shown(here)}: give a table of this network"
        )

  def digest(self) -> str:
    """Returns a checksum of the table's content."""
    return hashlib.sha256(json.dumps(_as_json(self)).encode()).hexdigest()


def read_latency_table(path: str | os.PathLike) -> LatencyTable:
  """Reads a latency table; the module's documentation has the format.

  Args:
    path: the file.

  Raises:
    InputError: the file cannot be read, is no latency table, or holds values that no table has.
  """
  path = os.fspath(path)
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
  except OSError as error:
    raise InputError(f"latency table {path} cannot be read: {error.strerror}") from error
  except ValueError as error:
    raise InputError(f"latency table {path} is no JSON file: {error}") from error
  if not isinstance(content, dict) or content.get("format") != _FORMAT:
    raise InputError(f'{path} is no latency table: its "format" must be "{_FORMAT}"')
  if content.get("version") != _VERSION:
    raise InputError(
      f"latency table {path} has version {content.get('version')!r} of the format: only version "
      f"{_VERSION} can be read"
    )
  try:
    return _from_json(content)
  except InputError as error:
    raise InputError(f"latency table {path}: {error}") from error
  except KeyError as error:
    raise InputError(f"latency table {path} has no {error.args[0]!r}: add it") from error
  except (TypeError, ValueError, AttributeError) as error:
    raise InputError(f"latency table {path} has a value of the wrong type: {error}") from error


def write_latency_table(path: str | os.PathLike, table: LatencyTable) -> None:
  """Writes a latency table to a file, which is complete or absent."""
  with whole_file(os.fspath(path)) as file:
    file.write(json.dumps(_as_json(table), indent=1).encode() + b"\n")


def _as_json(table: LatencyTable) -> dict[str, Any]:
  shapes = [
    {"what": shape.what, "widths": shape.widths, "seconds": shape.seconds.tolist()}
    for shape in table.shapes
  ]
  plain = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
  return {
    "format": _FORMAT,
    "version": _VERSION,
    **plain,
    "versions": dict(table.versions),
    "shapes": shapes,
    "layers": list(map(dataclasses.asdict, table.layers)),
  }


def _from_json(content: Mapping[str, Any]) -> LatencyTable:
  """Makes a table of its JSON form; other exceptions than InputError mean a wrong type."""
  shapes = [_shape(index, each) for index, each in enumerate(content["shapes"])]
  layers = []
  for each in content["layers"]:
    layer = TimedLayer(
      str(each["name"]), str(each["kind"]), _count(each, "shape", 0), _count(each, "times", 1)
    )
    if layer.shape >= len(shapes):
      raise InputError(f"layer {layer.name} has shape {layer.shape}, but there are {len(shapes)}")
    layers.append(layer)
  return LatencyTable(
    str(content["device"]),
    _count(content, "threads", 1),
    _count(content, "batch", 1),
    _count(content, "block", 1),
    str(content["date"]),
    {str(name): str(version) for name, version in content["versions"].items()},
    _time("constant", content["constant"]),
    _time("factor", content["factor"]),
    shapes,
    layers,
  )


def _shape(index: int, content: Mapping[str, Any]) -> TimedShape:
  """Makes a shape of its JSON form, with the checks that `read_latency_table` promises."""
  where = f"shape {index}"
  widths = tuple(tuple(axis) for axis in content["widths"])
  if not widths or any(
    not axis or any(type(w) is not int or w < 1 for w in axis) or list(axis) != sorted(set(axis))
    for axis in widths
  ):
    raise InputError(f"{where} has the widths {content['widths']}: they must be positive and grow")
  seconds = content["seconds"]
  _check_grid(where, seconds, tuple(map(len, widths)))
  return TimedShape(str(content["what"]), widths, np.array(seconds, np.float64))


def _check_grid(where: str, seconds: Any, sizes: tuple[int, ...]) -> None:
  """Raises InputError unless nested lists have these sizes and hold times."""
  if not sizes:
    _time(where, seconds)
    return
  if not isinstance(seconds, list) or len(seconds) != sizes[0]:
    found = len(seconds) if isinstance(seconds, list) else seconds
    raise InputError(
      f"{where} has a hole: where {sizes[0]} times belong, one for each width, it has {found}"
    )
  for each in seconds:
    _check_grid(where, each, sizes[1:])


def _time(where: str, value: Any) -> float:
  """Returns a time, checked."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise InputError(f"{where} has a hole: it has {value!r} where a time belongs")
  if not (math.isfinite(value) and value >= 0):
    raise InputError(f"{where} has the time {value}: times must be finite and not negative")
  return float(value)


def _count(content: Mapping[str, Any], name: str, least: int) -> int:
  """Returns a whole number, checked."""
  if type(value := content[name]) is not int or value < least:
    raise InputError(f"{name} is {value!r}: it must be a whole number, at least {least}")
  return value


def _shown(layer: tuple) -> str:
  name, kind, *widths = layer
  return f"{name} ({kind}, {' x '.join(map(str, widths))})"
