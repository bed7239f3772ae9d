"""The masks that pruning methods propose, and the file that keeps them."""

from collections.abc import Sequence
import os
import struct
from typing import NamedTuple
import zipfile
import zlib

from absl import logging
import numpy as np

from gatprune_jax.runtime.whole_files import whole_file
from gatprune_jax.search import SearchResult

# Exceptions that NumPy and zipfile raise on damaged files.
_DAMAGE = (
  OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error,
  struct.error,
)  # fmt: skip


class Proposal(NamedTuple):
  """The masks that a method proposes, and what it spent on them."""

  method: str
  masks: np.ndarray  # [S, N] bool, best by the method's own score first
  evaluations: int  # masks scored
  seconds: float
  passes: int = 0  # what scoring cost, in forward passes of one image


def as_proposal(method: str, result: SearchResult) -> Proposal:
  """Returns a search's shortlist as a proposal of the named method."""
  return Proposal(method, result.masks, result.evaluations, result.seconds, result.passes)


def save_proposals(path: str, proposals: Sequence[Proposal]) -> None:
  """Writes the proposals of all methods to an npz file, which is complete or absent.

  The file has one array for each field of `Proposal`. The masks of all methods are concatenated in
  one array, and a further array `count` holds the number of masks of each method.
  """
  columns = Proposal(*zip(*proposals, strict=True))._asdict()
  columns["count"] = [len(masks) for masks in columns["masks"]]
  columns["masks"] = np.concatenate(columns["masks"])
  with whole_file(path) as file:
    np.savez(file, **columns)


def load_proposals(path: str) -> list[Proposal] | None:
  """Reads the file that `save_proposals` wrote.

  Returns:
    The proposals, or None if there is no file or, with a warning, if the file is damaged.
  """
  if not os.path.exists(path):
    return None
  try:
    with open(path, "rb") as file, np.load(file) as columns:
      masks = np.split(columns["masks"], np.cumsum(columns["count"])[:-1])
      plain = (columns[name].tolist() for name in ("method", "evaluations", "seconds", "passes"))
      return [
        Proposal(method, some, *numbers)
        for some, method, *numbers in zip(masks, *plain, strict=True)
      ]
  except _DAMAGE as error:
    logging.warning("%s is damaged (%s): the masks are searched again", path, error)
    return None
