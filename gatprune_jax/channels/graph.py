"""The channels of a network: what `trace` finds, as plain data."""

import dataclasses
from typing import Any

import jax
import numpy as np

from gatprune_jax.errors import InputError


def leaf_paths(variables: Any) -> list[str]:
  """The path of every leaf, its keys joined by "/", in the order of `jax.tree.leaves`."""
  keys = (path for path, _ in jax.tree.leaves_with_path(variables))
  return [jax.tree_util.keystr(path, simple=True, separator="/") for path in keys]


def check_mask_shape(mask: Any, num_channels: int) -> None:
  """Raises InputError unless the mask has one entry for each channel."""
  if np.shape(mask) != (num_channels,):
    raise InputError(
      f"the mask has shape {np.shape(mask)}, but this network has {num_channels} channels: pass "
      f"one of shape ({num_channels},)"
    )


FROZEN = -1  # channel id of an element that is never removed


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array of the variables.

  Attributes:
    path: its keys, joined by "/".
    shape: its dense shape.
    axes: per axis, the channel id of every element, int64 `[size]`; FROZEN where it stays.
    is_parameter: counted by `params`; false for batch statistics.
  """

  path: str
  shape: tuple[int, ...]
  axes: tuple[np.ndarray, ...]
  is_parameter: bool


@dataclasses.dataclass(frozen=True)
class Layer:
  """One convolution or dot product.

  It costs `macs_per_pair * kept inputs * kept outputs * kept elements of every batch axis`
  multiply-adds for one example; one whose groups come and go whole (kind "depthwise")
  `macs_per_pair * n_in * kept outputs`.

  Attributes:
    name: path of the kernel, or the primitive and its position where there is no such leaf.
    kind: "conv", "depthwise" or "dense".
    inputs: channel ids of the contracted axis, int64 `[n_in]`; FROZEN where never removed.
    outputs: channel ids of the result's channel axis, int64 `[n_out]`.
    macs_per_pair: multiply-adds of one example for one pair of input and output channels, at one
      element of every batch axis.
    bytes_per_output: bytes that it writes for one example and one output channel, at one element
      of every batch axis.
    positions: output positions in space.
    kernel: index of the kernel among the graph's leaves, or None.
    kernel_axes: the kernel's axes of inputs and of outputs; None where it has no such axis.
    batch_axes: channel ids of every batch axis of a dot product that has channels, int64
      `[n_batch]` each: those of attention's heads, say.
  """

  name: str
  kind: str
  inputs: np.ndarray
  outputs: np.ndarray
  macs_per_pair: float
  bytes_per_output: float
  positions: int
  kernel: int | None
  kernel_axes: tuple[int | None, int | None]
  batch_axes: tuple[np.ndarray, ...] = ()

  @property
  def axes(self) -> tuple[np.ndarray, ...]:
    """The channel ids of every axis that its cost is proportional to."""
    return (self.inputs, self.outputs, *self.batch_axes)


@dataclasses.dataclass(frozen=True)
class Group:
  """The channels that live equally often on the same axes: any of them costs what another does.

  The axes are those of the variables, and of the layers, whose kernel may be no variable.

  Attributes:
    name: the first layer that produces them.
    channels: channel ids, int64 `[width]`.
    members: (variable path, axis) of every variable's axis they live on.
    has_bypass: whether, with all of them removed, a residual or parallel path still carries the
      signal to the output; this holds for any set of such groups together.
  """

  name: str
  channels: np.ndarray
  members: tuple[tuple[str, int], ...]
  has_bypass: bool = False


@dataclasses.dataclass(frozen=True)
class ChannelGraph:
  """What can be removed from a network, and what that removes.

  Attributes:
    num_channels: number of channels (decision units): N.
    groups: channels by the axes they live on, in network order.
    layers: convolutions and dot products, in network order.
    frozen: {variable path: why some of its axes are never cut}.
    leaves: the variables' arrays, in the order of `jax.tree.leaves`.
    treedef: the variables' tree.
  """

  num_channels: int
  groups: tuple[Group, ...]
  layers: tuple[Layer, ...]
  frozen: dict[str, str]
  leaves: tuple[Leaf, ...]
  treedef: Any

  @property
  def group_of(self) -> np.ndarray:
    """The index of every channel's group, int64 `[N]`."""
    groups = np.empty(self.num_channels, np.int64)
    for index, group in enumerate(self.groups):
      groups[group.channels] = index
    return groups

  def check_variables(self, variables: Any) -> None:
    """Raises InputError unless these have the tree and the shapes of the traced variables."""
    arrays, treedef = jax.tree.flatten(variables)
    if treedef != self.treedef:
      given, traced = leaf_paths(variables), [leaf.path for leaf in self.leaves]
      missing = [path for path in traced if path not in given]
      extra = [path for path in given if path not in traced]
      said = [f"{len(p)} {what}, {p[0]} first" for p, what in
              ((missing, "missing"), (extra, "that it does not have")) if p]  # fmt: skip
      raise InputError(
        "the variables are not the tree that the graph was traced with: "
        f"{' and '.join(said) or f'{treedef} instead of {self.treedef}'}"
      )
    for array, leaf in zip(arrays, self.leaves, strict=True):
      if np.shape(array) != leaf.shape:
        raise InputError(
          f"variable {leaf.path} has shape {np.shape(array)}, but the graph was traced with "
          f"{leaf.shape}"
        )
