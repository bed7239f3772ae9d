"""Applies the user's choice of what may be pruned, given as patterns over variable paths."""

from collections.abc import Sequence
import difflib
import fnmatch

import numpy as np

from gatprune_jax.channels.rules.axes import Axes, freeze_axes
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.labelling import Step
from gatprune_jax.channels.tracing.layers import produced
from gatprune_jax.errors import InputError


def matching(paths: Sequence[str], patterns: str | Sequence[str], argument: str) -> list[int]:
  """Returns the indices of the paths that match at least one pattern.

  A pattern is a run of whole components of the path, with `*`, `?` and `[]` as in a shell, except
  that `*` also matches "/". For example, "stem" matches "params/stem/kernel", and "stage1_*/conv1"
  matches "params/stage1_0/conv1/kernel".

  Args:
    paths: variable paths, whose components are joined by "/".
    patterns: one pattern or several patterns.
    argument: name of the caller's argument that holds the patterns, for errors.

  Raises:
    InputError: if a pattern matches nothing; the error names every such pattern.
  """
  patterns = [patterns] if isinstance(patterns, str) else patterns
  if not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
    raise InputError(f"{argument} is {patterns!r}: give a pattern, or a list of patterns")
  found: set[int] = set()
  unknown = []
  for pattern in patterns:
    anywhere = [f"{before}{pattern}{after}" for before in ("", "*/") for after in ("", "/*")]
    hits = [
      index
      for index, path in enumerate(paths)
      if any(fnmatch.fnmatchcase(path, whole) for whole in anywhere)
    ]
    found.update(hits)
    if not hits:
      unknown.append(pattern)
  if unknown:
    parts = sorted({component for path in paths for component in path.split("/")})
    near = {m for p in unknown for m in difflib.get_close_matches(p, parts, n=3, cutoff=0.0)}
    raise InputError(
      f"{argument}: no variable matches {', '.join(map(repr, unknown))}; near are "
      f"{', '.join(sorted(near))}"
    )
  return sorted(found)


def apply_selection(
  classes: LabelClasses,
  steps: list[Step],
  paths: Sequence[str],
  leaf_axes: list[Axes],
  keep: str | Sequence[str],
  freeze: str | Sequence[str],
  only: str | Sequence[str],
) -> None:
  """Freezes the classes that may not be pruned.

  Args:
    classes: the label classes, which are frozen in place.
    steps: the layers of the program, in execution order.
    paths: the variables' paths.
    leaf_axes: the labels of every axis of every variable.
    keep: patterns; see `trace`.
    freeze: patterns; see `trace`.
    only: patterns; see `trace`.

  Raises:
    InputError: if a pattern matches nothing, or a pattern of `only` matches no kernel that produces
      channels.
  """
  for index in matching(paths, freeze, "freeze"):
    freeze_axes(classes, leaf_axes[index], "named by freeze")

  # Index of a kernel -> labels of the outputs of each layer that uses the kernel.
  outputs: dict[int, list[np.ndarray]] = {}
  for step in steps:
    if step.leaf is not None:
      outputs.setdefault(step.leaf, []).extend(produced(step))
  for index in matching(paths, keep, "keep"):
    # For a kernel, its layers' outputs are frozen; for any other variable, all of its axes are.
    freeze_axes(classes, tuple(outputs.get(index) or leaf_axes[index]), "named by keep")

  allowed = []
  matching(paths, only, "only")  # raises one error that names all patterns without a match
  for pattern in [only] if isinstance(only, str) else only:
    chosen = matching(paths, pattern, "only")
    if not (produces := [labels for index in chosen for labels in outputs.get(index, [])]):
      raise InputError(
        f"only: {', '.join(paths[i] for i in chosen)} are not kernels that produce channels: name "
        "layers"
      )
    allowed += produces
  if allowed:
    roots = np.unique(classes.find(np.concatenate(allowed)))
    # A layer whose kernel is not a variable produces channels too.
    made = tuple(labels for step in steps for labels in produced(step))
    for axes in (*leaf_axes, made):
      for labels in axes:
        others = labels[~np.isin(classes.find(labels), roots)]
        if len(others):
          classes.freeze(others, "not named by only")
