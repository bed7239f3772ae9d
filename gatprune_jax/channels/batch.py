"""Finds the batch axis of a function's inputs."""

from typing import Any, NamedTuple

import jax
from jax import export
import numpy as np

from gatprune_jax.errors import InputError


class Batch(NamedTuple):
  """The batch of a function's input.

  Attributes:
    size: number of examples.
    has_axis: for each leaf of the input, whether its first axis is the batch. An input without the
      axis, such as anchors or camera parameters, is the same for all examples.
  """

  size: int
  has_axis: tuple[bool, ...]

  def resized(self, x: Any, size: Any) -> Any:
    """Returns the shapes and dtypes of the input x with `size` examples.

    The dtypes are those that JAX computes with: float64 becomes float32, unless x64 is enabled.

    Args:
      x: the input, a tree of arrays.
      size: a number, or a symbolic dimension.
    """
    leaves, treedef = jax.tree.flatten(jax.eval_shape(lambda x: x, x))
    specs = [
      jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype) if has_axis else leaf
      for leaf, has_axis in zip(leaves, self.has_axis, strict=True)
    ]
    return jax.tree.unflatten(treedef, specs)


def batch_size(batch: int | None) -> Any:
  """Returns the size of a batch in an exported program: the number, or a symbol for None.

  Raises:
    InputError: the number is not positive.
  """
  if batch is None:
    return export.symbolic_shape("batch")[0]
  if batch < 1:
    raise InputError(f"batch {batch}: an exported program needs a positive one, or None")
  return batch


def check_examples(x: Any) -> None:
  """Raises InputError if no array of x has a first axis, or one has a first axis of size 0."""
  sizes = [np.shape(leaf)[0] for leaf in jax.tree.leaves(x) if np.shape(leaf)]
  if not sizes:
    raise InputError("x must be an array, or a tree of arrays, whose first axis is the batch")
  if 0 in sizes:
    raise InputError("x holds 0 examples: costs are counted for one, so pass at least one")


def find_batch(x: Any, outputs: Any) -> Batch:
  """Returns the batch of x, the first axis of its arrays.

  If the arrays of x have first axes of different sizes, the batch is the one that the outputs have
  too.

  Args:
    x: a tree of arrays, or of `jax.ShapeDtypeStruct`s, that passes `check_examples`.
    outputs: what the function returns for x, a tree of arrays or of their shapes.

  Raises:
    InputError: if it is not clear which array of x has the batch.
  """
  inputs = [np.shape(leaf) for leaf in jax.tree.leaves(x)]
  sizes = {shape[0] for shape in inputs if shape}
  if len(sizes) > 1:
    returned = {np.shape(leaf)[0] for leaf in jax.tree.leaves(outputs) if np.shape(leaf)}
    if len(sizes & returned) != 1:
      raise InputError(
        f"the arrays of x have first axes of sizes {', '.join(map(str, sorted(sizes)))}, and the "
        "outputs do not show which of them is the batch: pass only arrays whose first axis is the "
        "batch, and let apply_fn capture the others"
      )
    sizes &= returned
  (size,) = sizes
  return Batch(size, tuple(bool(shape) and shape[0] == size for shape in inputs))
