"""What methods propose, and as a file."""

from collections.abc import Sequence
import os
import struct
from typing import NamedTuple
import zipfile
import zlib

from absl import logging
import numpy as np

from gatprune_jax.runtime.files import whole_file
from gatprune_jax.search import SearchResult

# What NumPy and zipfile raise on damaged bytes.
_DAMAGE = (
  OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error,
  struct.error,
)  # fmt: skip


class Proposal(NamedTuple):
  """What a method proposes."""

  method: str
  masks: np.ndarray  # [S, N], best by the method's own score first
  evaluations: int
  seconds: float


def as_proposal(method: str, result: SearchResult) -> Proposal:
  """A search's shortlist."""
  return Proposal(method, result.masks, result.evaluations, result.seconds)


def save_proposals(path: str, proposals: Sequence[Proposal]) -> None:
  """Writes what all methods propose, whole or not at all: one array for each field of `Proposal`.

  Masks follow each other in one array; `count` says how many each method has.
  """
  columns = Proposal(*zip(*proposals, strict=True))._asdict()
  columns["count"] = [len(masks) for masks in columns["masks"]]
  columns["masks"] = np.concatenate(columns["masks"])
  with whole_file(path) as file:
    np.savez(file, **columns)


def load_proposals(path: str) -> list[Proposal] | None:
  """Reads what `save_proposals` wrote; None, with a warning, where the file is damaged."""
  if not os.path.exists(path):
    return None
  try:
    with open(path, "rb") as file, np.load(file) as columns:
      masks = np.split(columns["masks"], np.cumsum(columns["count"])[:-1])
      plain = (columns[name].tolist() for name in ("method", "evaluations", "seconds"))
      return [
        Proposal(method, some, evaluations, seconds)
        for some, method, evaluations, seconds in zip(masks, *plain, strict=True)
      ]
  except _DAMAGE as error:
    logging.warning("%s is damaged (%s): the masks are searched again", path, error)
    return None
