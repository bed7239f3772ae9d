"""Makes a data set of a user's own examples, given as arrays in memory."""

from typing import Any

import jax
import numpy as np

from gatprune_jax.data.splits import Dataset, Sizes, Split, cut, cut_parts
from gatprune_jax.errors import InputError

# Default sizes of the parts, as shares of the examples (x, y).
_SHARES = {"reward": 0.2, "select": 0.15, "test": 0.2}


def arrays(
  x: Any,
  y: Any,
  *,
  seed: int = 0,
  train: tuple[Any, Any] | None = None,
  test: tuple[Any, Any] | None = None,
  sizes: Sizes | None = None,
) -> Dataset:
  """Cuts examples into the four parts that pruning needs.

  The train part fine-tunes networks, the reward part scores masks during the search, the select
  part chooses among finished networks, and the test part is used once, at the end. The reward,
  select and test parts should be new to the network. If the network was trained on some of the
  examples, pass those as `train`, and other examples as x and y.

  Args:
    x: inputs `[n, ...]`, as the network's functions take them.
    y: targets, an array or a tree of arrays `[n, ...]`: integer labels for classification.
    seed: seed of the cuts.
    train: (x, y) of the train part; the other parts are cut from x and y. If None, all four parts
      are cut from x and y.
    test: (x, y) of the test part; None cuts the test part too.
    sizes: sizes of the parts that are cut, in examples. None takes 20 % for reward, 15 % for select
      and 20 % for test, and the rest trains. If `train` is given, the reward part is everything
      that select and test leave.

  Raises:
    InputError: if x and y do not fit each other, do not hold numbers, or hold NaN or infinity, or
      if a part would be empty.
  """
  everything = _split(x, y, "x", "y")
  test_part = None if test is None else _like(everything, *_pair(test, "test"))
  if sizes is None:
    share = lambda part: max(1, round(_SHARES[part] * everything.num))
    sizes = Sizes(0, share("reward"), share("select"), 0 if test is not None else share("test"))
  if train is None:
    return Dataset("arrays", None, *cut_parts(everything, test_part, sizes, seed))
  train_part, rest = _like(everything, *_pair(train, "train")), everything
  if test_part is None:
    test_part, rest = cut(rest, sizes.test, seed)
  select, reward = cut(rest, sizes.select, seed)
  return Dataset("arrays", None, train_part, reward, select, test_part)


def _pair(given: Any, name: str) -> tuple[Any, Any, str, str]:
  if not (isinstance(given, (tuple, list)) and len(given) == 2):
    raise InputError(f"{name} is no pair: give {name}=(x, y), inputs and targets")
  return *given, f"{name} x", f"{name} y"


def _split(x: Any, y: Any, x_name: str, y_name: str) -> Split:
  if isinstance(y, (list, tuple)) and not any(map(np.ndim, jax.tree.leaves(y))):
    y = np.asarray(y)  # a list of numbers, not a tree of arrays
  x, y = _numbers(x, x_name), jax.tree.map(lambda leaf: _numbers(leaf, y_name), y)
  if not jax.tree.leaves(y):
    raise InputError(f"{y_name} holds no array: give the targets of {x_name}, [n, ...]")
  if x.ndim < 2 or x.size == 0:
    raise InputError(f"{x_name} has shape {x.shape}: it must be [n, ...], one input an example")
  for leaf in jax.tree.leaves(y):
    if leaf.shape[:1] != x.shape[:1]:
      raise InputError(
        f"{y_name} has shape {leaf.shape} and {x_name} {x.shape}: both must begin with the same "
        "number of examples"
      )
  return Split(x, y)


def _like(other: Split, x: Any, y: Any, x_name: str, y_name: str) -> Split:
  """Returns a part after checking that its examples have the dtypes and shapes of the others."""
  split = _split(x, y, x_name, y_name)
  form = lambda tree: jax.tree.map(lambda leaf: (leaf.dtype.name, *leaf.shape[1:]), tuple(tree))
  if form(split) != form(other):
    raise InputError(f"{x_name} and y are of the form {form(split)}, x and y of {form(other)}")
  return split


def _numbers(value: Any, name: str) -> np.ndarray:
  """Returns an array of numbers with at most 32 bits each, because JAX computes with those."""
  array = np.asarray(value)
  if array.dtype.kind not in "buif" or array.ndim == 0:
    raise InputError(
      f"{name} is of dtype {array.dtype} and shape {array.shape}: it must be an array of numbers"
    )
  if array.dtype.kind == "f":
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    if not np.isfinite(array).all():
      raise InputError(f"{name} holds values that are NaN or infinite: finite ones are needed")
    return array
  if array.dtype.itemsize == 8:
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
      raise InputError(f"{name} holds integers beyond 32 bits: the largest is {array.max()}")
    array = array.astype(np.int32)
  return array
