"""Plain data classes that describe the channels of a network; `trace` fills them."""

import dataclasses
from typing import Any

import jax
import numpy as np

from gatprune_jax.errors import InputError


def leaf_paths(variables: Any) -> list[str]:
  """Returns every leaf's path, its keys joined by "/", in the order of `jax.tree.leaves`."""
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
    path: the keys that lead to the array in the tree of variables, joined by "/".
    shape: the shape of the array before any channel is removed.
    axes: for each axis, the channel id of every element, int64 `[size]`; FROZEN for an element
      that is never removed.
    is_parameter: whether `params` counts the array; false for batch statistics.
    itemsize: bytes of one element, in the dtype in which JAX holds the array.
  """

  path: str
  shape: tuple[int, ...]
  axes: tuple[np.ndarray, ...]
  is_parameter: bool
  itemsize: int


@dataclasses.dataclass(frozen=True)
class Layer:
  """One convolution or dot product.

  For one example, a layer of kind "conv" or "dense" costs
  `macs_per_pair * kept inputs * kept outputs * kept elements of every further axis` multiply-adds.
  A layer of kind "depthwise" is a grouped convolution that loses whole groups, each with its input
  and output channels. It costs `macs_per_pair * n_in * kept outputs` multiply-adds, where n_in is
  the fixed number of inputs in each group.

  Attributes:
    name: path of the kernel among the variables; for a kernel that is not a variable, the name of
      the primitive and the position of the layer.
    kind: "conv", "depthwise" or "dense".
    inputs: channel ids of the main contracted axis, int64 `[n_in]`; FROZEN for elements that are
      never removed.
    outputs: channel ids of the result's main channel axis, int64 `[n_out]`; FROZEN as for inputs.
    macs_per_pair: multiply-adds of one example for one pair of input and output channels, at one
      element of every further axis.
    positions: number of output positions in space.
    kernel: index of the kernel among the graph's leaves; None for a kernel that is not a variable.
    kernel_axes: index of the kernel's main input axis and of its main output axis; None for an axis
      that the kernel does not have.
    further_axes: channel ids of each further axis that is contracted or is the result's, if it has
      labels, int64 `[size]` each, such as the axis of attention heads.
    further_outputs: index of each further axis of the kernel that holds output channels.
  """

  name: str
  kind: str
  inputs: np.ndarray
  outputs: np.ndarray
  macs_per_pair: float
  positions: int
  kernel: int | None
  kernel_axes: tuple[int | None, int | None]
  further_axes: tuple[np.ndarray, ...] = ()
  further_outputs: tuple[int, ...] = ()

  @property
  def axes(self) -> tuple[np.ndarray, ...]:
    """The channel ids of every axis whose kept elements are factors of the layer's cost."""
    return (self.inputs, self.outputs, *self.further_axes)

  @property
  def cut_axes(self) -> tuple[np.ndarray, ...]:
    """Those of `axes` that can lose channels; axes with the same channels count once."""
    found: dict[frozenset[int], np.ndarray] = {}
    for ids in self.axes:
      if channels := frozenset(ids[ids != FROZEN].tolist()):
        found.setdefault(channels, ids)
    return tuple(found.values())


@dataclasses.dataclass(frozen=True)
class Activation:
  """One array that a forward pass writes to memory, or reads as its input.

  Under a mask the array takes `bytes * product over axes of the number of kept elements`, where
  the bytes are `shared_bytes + B * example_bytes` for a batch of B examples.

  Attributes:
    example_bytes: bytes for each example of the batch, at one element of every labelled axis.
    shared_bytes: bytes that do not depend on the batch, at one element of every labelled axis.
    axes: channel ids of every axis that has labels, int64 `[size]` each.
  """

  example_bytes: float
  shared_bytes: float
  axes: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Group:
  """Channels that occur equally often on the same axes, so that each has the same cost.

  The compared axes are those of all variables and those of all layers. The layers are needed as
  well because the kernel of a layer may be computed instead of being a variable.

  Attributes:
    name: name of the first layer that produces the channels, with the kernel's axis if they are not
      on the main one.
    channels: channel ids, int64 `[width]`.
    members: (variable path, axis) of every axis of a variable that holds the channels.
    has_bypass: whether a residual or parallel path still carries the signal to the output when all
      channels of the group are removed. The signal also survives when several groups with a
      bypass are removed together.
  """

  name: str
  channels: np.ndarray
  members: tuple[tuple[str, int], ...]
  has_bypass: bool = False


@dataclasses.dataclass(frozen=True)
class ChannelGraph:
  """The removable channels of a network, with the arrays and layers that each channel occupies.

  Attributes:
    num_channels: number of channels, N. Each channel is either kept or removed as a whole.
    groups: the channels, grouped by the axes that hold them, in network order.
    layers: convolutions and dot products, in network order.
    frozen: {variable path: reason why some of its axes are never cut}.
    fixed_divisors: {group: the constants that divide sums over its channels, whatever is kept};
      one is the n - 1 of a variance. The number of elements, which divides a mean, is none: it is
      that of the elements that are kept.
    activations: the arrays that a forward pass holds in memory.
    moments: for each moment of a forward pass, the indices of the activations that are in memory.
    leaves: the variables' arrays, in the order of `jax.tree.leaves`.
    treedef: the tree structure of the variables.
  """

  num_channels: int
  groups: tuple[Group, ...]
  layers: tuple[Layer, ...]
  frozen: dict[str, str]
  fixed_divisors: dict[str, tuple[float, ...]]
  activations: tuple[Activation, ...]
  moments: tuple[tuple[int, ...], ...]
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
    """Raises InputError unless the variables have the tree and the shapes of the traced ones."""
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
