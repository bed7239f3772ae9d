"""A manifest: a file with the SHA-256 of every other file in a directory, and of itself.

The manifest is written last, and a directory gets its final name only after that. So a directory
under its final name that has no valid manifest was damaged later.
"""

import hashlib
import json
import os
from typing import Any

_NAME = "manifest"  # the first line is the SHA-256 of the rest, which is JSON


class Damaged(Exception):
  """A directory has changed since it was sealed; the message says which file."""


def seal(directory: str, about: dict[str, Any]) -> None:
  """Writes the manifest, and waits until all files of the directory are on the disk.

  Args:
    directory: path of the directory, which is complete except for its manifest.
    about: further information to save, of JSON types; no key may be "files".

  Raises:
    OSError: where the manifest cannot be written.
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
  """Checks that every file is unchanged; returns `about` of `seal`.

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
  """Waits until the content of a file, or the list of names in a directory, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _files(directory: str) -> list[str]:
  """Returns the sorted paths of all files below a directory, relative to it."""
  paths = (os.path.join(root, name) for root, _, names in os.walk(directory) for name in names)
  return sorted(os.path.relpath(path, directory) for path in paths)


def _digest(directory: str, name: str) -> str:
  try:
    with open(os.path.join(directory, name), "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise Damaged(f"{name} cannot be read ({error.strerror})") from error
