"""A file that says what a directory holds: the SHA-256 of every other file, and of itself.

It is written last, so that a directory under its final name without a valid manifest was damaged.
"""

import hashlib
import json
import os
from typing import Any

_NAME = "manifest"  # its own SHA-256 in the first line, then JSON


class Damaged(Exception):
  """A directory is not what was sealed; the message says in what."""


def seal(directory: str, about: dict[str, Any]) -> None:
  """Writes the manifest, and waits until the directory is on the disk with all it holds.

  Args:
    directory: complete but for its manifest.
    about: what else is to be known, of JSON types; no key is "files".

  Raises:
    OSError: where it cannot be written.
  """
  files = _files(directory)
  content = json.dumps(
    {**about, "files": {name: _digest(directory, name) for name in files}}, sort_keys=True
  ).encode()
  with open(os.path.join(directory, _NAME), "wb") as file:
    file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
  for name in [*files, _NAME]:
    sync(os.path.join(directory, name))
  for root, _, _ in os.walk(directory):
    sync(root)


def verify(directory: str) -> dict[str, Any]:
  """What `seal` was told, once every file was found unchanged.

  Raises:
    Damaged: where a byte has changed, or a file was added or lost.
  """
  try:
    with open(os.path.join(directory, _NAME), "rb") as file:
      digest, _, content = file.read().partition(b"\n")
  except OSError as error:
    raise Damaged(f"its {_NAME} cannot be read ({error.strerror})") from error
  if digest != hashlib.sha256(content).hexdigest().encode():
    raise Damaged(f"its {_NAME} has changed")
  about = json.loads(content)
  files = about.pop("files")
  there = set(_files(directory)) - {_NAME}
  if difference := there ^ files.keys():
    name = min(difference)
    raise Damaged(f"{name} is {'missing' if name in files else 'not one of its files'}")
  for name, digest in files.items():
    if _digest(directory, name) != digest:
      raise Damaged(f"{name} has changed")
  return about


def sync(path: str) -> None:
  """Waits until a file's content, or a directory's names, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _files(directory: str) -> list[str]:
  """Names of all files below a directory, relative to it, sorted."""
  paths = (os.path.join(root, name) for root, _, names in os.walk(directory) for name in names)
  return sorted(os.path.relpath(path, directory) for path in paths)


def _digest(directory: str, name: str) -> str:
  try:
    with open(os.path.join(directory, name), "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise Damaged(f"{name} cannot be read ({error.strerror})") from error
