"""Rules for operations that make, move or repeat whole axes.

Each primitive has up to two functions here. `name(classes, eqn, inputs)` returns the labelled axes
of the results, given those of the operands, and merges or freezes label classes. `name_params(eqn,
inputs, outputs, kept)` returns the equation's parameters for the channels that remain, or None if
the equation must be evaluated at its dense shapes. `rules.table` lists both for every primitive.
"""

import numpy as np

from gatprune_jax.channels.rules.axes import ALONE, Axes, Axis, freeze_axes, merge_all, resized
from gatprune_jax.channels.rules.classes import LabelClasses


def broadcast_in_dim(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Gives every new axis fresh labels of copies, and freezes an axis of size 1 that grows.

  A later operation may unify the fresh labels with channels, which decides which elements remain.
  """
  shape = eqn.params["shape"]
  source = dict(zip(eqn.params["broadcast_dimensions"], range(len(inputs[0])), strict=True))
  operand_shape = eqn.invars[0].aval.shape
  out = []
  for axis, size in enumerate(shape):
    if axis in source and operand_shape[source[axis]] == size:
      out.append(inputs[0][source[axis]])
      continue
    if axis in source and inputs[0][source[axis]] is not None:
      classes.freeze(inputs[0][source[axis]], "broadcast over a whole axis")
    is_constant = isinstance(size, int) and size > 1  # not a symbolic batch size
    out.append(classes.fresh(size, copies=True) if is_constant else None)
  return [tuple(out)]


def broadcast_in_dim_params(eqn, inputs, outputs, kept):
  """Returns the parameters with the new shape."""
  return {**eqn.params, "shape": resized(eqn.params["shape"], outputs[0], kept)}


def transpose(classes, eqn, inputs):
  """Permutes the labelled axes."""
  return [tuple(inputs[0][k] for k in eqn.params["permutation"])]


def squeeze(classes, eqn, inputs):
  """Drops axes of size 1 and freezes their labels, because the only element must stay."""
  dropped = eqn.params["dimensions"]
  freeze_axes(classes, tuple(inputs[0][k] for k in dropped), ALONE)
  return [tuple(labels for k, labels in enumerate(inputs[0]) if k not in dropped)]


def pad(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Gives the padding elements fresh labels, which a later operation may unify with channels.

  A negative number crops an axis, as the derivative of padding does. A labelled axis that is
  dilated between its elements is frozen.
  """
  out = []
  for labels, (low, high, interior) in zip(inputs[0], eqn.params["padding_config"], strict=True):
    if labels is None or (low == 0 and high == 0 and interior == 0):
      out.append(labels)
    elif interior != 0 or max(-low, 0) + max(-high, 0) > len(labels):
      classes.freeze(labels, "dilated or cropped away by `pad`")
      out.append(None)
    else:
      parts = classes.fresh(max(low, 0)), _cropped(labels, low, high), classes.fresh(max(high, 0))
      out.append(np.concatenate(parts))
  return [tuple(out)]


def _cropped(labels: np.ndarray, low: int, high: int) -> np.ndarray:
  """Returns the labels that remain where a number of padding elements is negative."""
  return labels[max(-low, 0) : len(labels) - max(-high, 0)]


def pad_params(eqn, inputs, outputs, kept):
  """Returns the parameters with the numbers of padded or cropped elements that remain."""
  config = []
  sides = zip(inputs[0], outputs[0], eqn.params["padding_config"], strict=True)
  for before, after, (low, high, interior) in sides:
    if after is not None and (low or high):
      old, new = kept(before), kept(after)
      low = int(new[:low].sum()) if low >= 0 else -int(old[:-low].sum())
      high = int(new[len(new) - high :].sum()) if high >= 0 else -int(old[high:].sum())
    config.append((low, high, interior))
  return {**eqn.params, "padding_config": tuple(config)}


def source(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Gives fresh labels to values that are made from a shape alone, such as random bits.

  A later operation may unify the fresh labels with channels, which decides which elements remain.
  """
  return [
    tuple(classes.fresh(n) if isinstance(n, int) else None for n in out.aval.shape)
    for out in eqn.outvars
  ]


def source_params(eqn, inputs, outputs, kept):
  """Returns None, so that the values are made as in the dense network and cut afterwards."""
  return None


def concatenate(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Concatenates the labels along one axis and unifies those of all other axes."""
  along = eqn.params["dimension"]
  out = []
  for axis in range(len(inputs[0])):
    parts = [axes[axis] for axes in inputs]
    if axis != along:
      singles = [(labels,) for labels in parts]
      out += merge_all(classes, singles, "`concatenate` with an axis without channels")
    elif all(labels is None for labels in parts):
      out.append(None)
    elif any(labels is None for labels in parts) and _hold_no_channels(classes, parts):
      # Tokens or examples: a single one is never removed, nor are copies beside others.
      freeze_axes(classes, tuple(parts), ALONE)
      out.append(None)
    elif not all(isinstance(var.aval.shape[axis], int) for var in eqn.invars):  # symbolic sizes
      freeze_axes(classes, tuple(parts), "`concatenate` along the batch")
      out.append(None)
    else:  # an unlabelled part, such as an input image, keeps all of its elements
      filled = []
      for var, labels in zip(eqn.invars, parts, strict=True):
        if labels is None:
          labels = classes.fresh(var.aval.shape[axis])
          classes.freeze(labels, "concatenated part without channels")
        filled.append(labels)
      out.append(np.concatenate(filled))
  return [tuple(out)]


def _hold_no_channels(classes: LabelClasses, parts: list[Axis]) -> bool:
  """Returns whether each labelled axis is frozen, has a single element, or holds copies."""
  return all(
    labels is None or len(labels) == 1 or classes.are_frozen(labels) or classes.are_copies(labels)
    for labels in parts
  )


def stack(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies the labels of all operands; the new axis, on which they lie, is unlabelled."""
  axes = merge_all(classes, inputs, "`stack` with an axis without channels")
  place = eqn.params["axis"]
  return [(*axes[:place], None, *axes[place:])]


def unstack(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Drops the axis along which the operand is taken apart, and freezes its labels."""
  place = eqn.params["axis"]
  freeze_axes(classes, inputs[0][place : place + 1], ALONE)
  axes = tuple(labels for k, labels in enumerate(inputs[0]) if k != place)
  return [axes] * len(eqn.outvars)


def tile(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Repeats the labels of each axis as often as its elements."""
  reps = eqn.params["reps"]
  if not all(isinstance(num, int) for num in reps):  # a symbolic batch
    repeated = tuple(a for a, num in zip(inputs[0], reps, strict=True) if not isinstance(num, int))
    freeze_axes(classes, repeated, "repeated as often as there are examples")
  return [
    tuple(
      np.tile(labels, num) if labels is not None and isinstance(num, int) else None
      for labels, num in zip(inputs[0], reps, strict=True)
    )
  ]
