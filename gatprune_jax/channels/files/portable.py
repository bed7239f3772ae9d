"""What the files of other runtimes share: names of inputs and outputs, and a check."""

from collections.abc import Callable, Sequence
import importlib
import os
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.batch import Batch, find_batch
from gatprune_jax.channels.compaction import Compact
from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.whole_files import whole_file

_TOLERANCE = 1e-4  # largest difference, relative to an output's largest magnitude


class Portable(NamedTuple):
  """A network as a function of arrays, with its weights inside.

  Attributes:
    apply: maps the leaves of an input to the leaves of the outputs.
    inputs: a name for each leaf of an input: "x", or "x/" and its path.
    outputs: a name for each leaf of the outputs: "y", or "y/" and its path.
    x: the leaves of the example input.
    batch: which leaves of an input have the batch.
  """

  apply: Callable[..., list[Any]]
  inputs: list[str]
  outputs: list[str]
  x: list[np.ndarray]
  batch: Batch

  def examples(self, size: int) -> list[np.ndarray]:
    """Returns the leaves of an input with `size` examples, those of x over and over again."""
    pairs = zip(self.x, self.batch.has_axis, strict=True)
    return [np.resize(a, (size, *a.shape[1:])) if has_axis else a for a, has_axis in pairs]

  def specs(self, size: Any) -> list[jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of the leaves of an input with `size` examples."""
    return self.batch.resized(self.x, size)

  def check(self, runtime: str, run: Callable[[list[np.ndarray]], list[Any]], size: int) -> None:
    """Compares what another runtime computes with what JAX computes.

    Args:
      runtime: its name, for the error.
      run: evaluates the leaves of an input.
      size: number of examples to evaluate.

    Raises:
      InputError: if an output differs by more than 1e-4 of its largest magnitude.
    """
    examples = self.examples(size)
    expected = jax.jit(self.apply)(*examples)
    for name, found, wanted in zip(self.outputs, run(examples), expected, strict=True):
      wanted = np.asarray(wanted)
      same = np.shape(found) == wanted.shape
      difference = relative_difference(found, wanted) if same else np.inf
      if not difference <= _TOLERANCE:
        raise InputError(
          f"no file was written: in {runtime}, output {name} differs from JAX's by "
          f"{difference:.1e} of its largest magnitude on {size} examples, where {_TOLERANCE:.0e} "
          "is allowed"
        )


def portable(path: str | os.PathLike, small: Compact, x: Any) -> Portable:
  """Returns a network as a function of arrays.

  Args:
    path: the file that will be written.
    small: the network.
    x: an example input.

  Raises:
    InputError: if the path exists, or x does not show which of its axes is the batch.
  """
  if os.path.exists(path):
    raise InputError(f"{os.fspath(path)} exists: choose another path, or remove it first")
  outputs = jax.eval_shape(small.apply, small.variables, x)
  leaves, treedef = jax.tree.flatten(x)
  apply = lambda *leaves: jax.tree.leaves(
    small.apply(small.variables, jax.tree.unflatten(treedef, leaves))
  )
  canonical = [np.asarray(jnp.asarray(leaf)) for leaf in leaves]
  return Portable(apply, _names("x", x), _names("y", outputs), canonical, find_batch(x, outputs))


def write(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file, which appears once it is complete.

  Raises:
    InputError: if it cannot be written.
  """
  try:
    with whole_file(os.fspath(path)) as file:
      file.write(content)
  except OSError as error:
    raise InputError(f"{os.fspath(path)} cannot be written: {error.strerror}") from error


def relative_difference(found: Any, expected: Any) -> float:
  """Returns the largest difference of two arrays over the largest magnitude of the second."""
  found, expected = (np.asarray(value, np.float64) for value in (found, expected))
  scale = max(np.abs(expected).max(initial=0), np.finfo(np.float32).tiny)
  return float(np.abs(found - expected).max(initial=0) / scale)


def optional(modules: Sequence[str], extra: str) -> list[ModuleType]:
  """Imports modules that only an extra of this package installs.

  Args:
    modules: their dotted names.
    extra: the name of the extra in `setup.py`.

  Raises:
    InputError: if one cannot be imported.
  """
  try:
    return [importlib.import_module(name) for name in modules]
  except ImportError as error:
    raise InputError(
      f"{error.name or modules[0]} is not installed: install this package with its extra, as in "
      f"pip install 'gatprune_jax[{extra}]'"
    ) from error


def _names(root: str, tree: Any) -> list[str]:
  return [f"{root}/{path}" if path else root for path in leaf_paths(tree)]
