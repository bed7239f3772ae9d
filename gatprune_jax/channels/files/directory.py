"""A directory of files with a manifest that holds the SHA-256 of each of them, and its own.

The directory appears once it is complete, and every byte is checked when it is read.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import json
import os
from typing import Any

from gatprune_jax.errors import InputError
from gatprune_jax.runtime.whole_files import whole_directory

MANIFEST = "manifest.json"
_OWN = "sha256"  # the manifest's entry of its own checksum


@dataclasses.dataclass(frozen=True)
class Directory:
  """A directory that was read and checked.

  Attributes:
    path: where it is.
    manifest: what the writer put into the manifest, without the checksums.
    files: {name: content}.
  """

  path: str
  manifest: dict[str, Any]
  files: dict[str, bytes]

  def parsed(self, name: str, parse: Callable[[bytes], Any]) -> Any:
    """Returns what `parse` returns for the content of one file.

    Raises:
      InputError: if there is no such file, or it cannot be parsed.
    """
    try:
      return parse(self.files[name])
    except Exception as error:  # JSON, FlatBuffers and safetensors raise different exceptions
      raise _unreadable(self.path, name, f"{type(error).__name__}: {error}") from error


def write_directory(path: str, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
  """Writes the files and their manifest.

  Args:
    path: the directory to write, which does not exist yet.
    manifest: what else the manifest holds: JSON types, without the keys "files" and "sha256".
    files: {name: content}.

  Raises:
    InputError: if the path exists, or cannot be written.
  """
  if os.path.exists(path):
    raise InputError(f"{path} exists: choose another path, or remove it first")
  sums = {name: _sha256(content) for name, content in files.items()}
  content = {**manifest, "files": sums}
  text = json.dumps({**content, _OWN: _sha256_of_json(content)}, indent=1)
  try:
    with whole_directory(path) as partial:
      for name, data in [*files.items(), (MANIFEST, text.encode())]:
        with open(os.path.join(partial, name), "wb") as file:
          file.write(data)
          file.flush()
          os.fsync(file.fileno())
  except OSError as error:
    raise InputError(f"{path} cannot be written: {error.strerror}") from error


def read_manifest(path: str) -> dict[str, Any]:
  """Reads a manifest without checking it.

  Raises:
    InputError: if there is no manifest, or it is no JSON object.
  """
  content = read_file(path, MANIFEST)
  try:
    return dict(json.loads(content))
  except (ValueError, TypeError) as error:
    raise _unreadable(path, MANIFEST, f"{type(error).__name__}: {error}") from error


def read_directory(path: str, manifest: Mapping[str, Any]) -> Directory:
  """Reads all files that a manifest names, and checks them and the manifest itself.

  Args:
    path: the directory.
    manifest: what `read_manifest` returned for it.

  Raises:
    InputError: if a file is missing, or is not the one that was written.
  """
  content = {name: value for name, value in manifest.items() if name != _OWN}
  if manifest.get(_OWN) != _sha256_of_json(content):
    raise _changed(path, MANIFEST)
  files = {}
  for name, expected in content.pop("files").items():
    files[name] = read_file(path, name)
    if _sha256(files[name]) != expected:
      raise _changed(path, name)
  return Directory(path, content, files)


def read_file(path: str, name: str) -> bytes:
  """Returns the content of a file of a saved network.

  Raises:
    InputError: if it cannot be read.
  """
  try:
    with open(os.path.join(path, name), "rb") as file:
      return file.read()
  except OSError as error:
    raise _unreadable(path, name, error.strerror) from error


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def _sha256_of_json(content: Mapping[str, Any]) -> str:
  """Returns the checksum of JSON types, whatever the spaces between them in a file."""
  return _sha256(json.dumps(content, sort_keys=True).encode())


def _unreadable(path: str, name: str, why: str) -> InputError:
  return InputError(
    f"{path} is not a saved network: {name} cannot be read ({why}); choose a directory that save "
    "wrote, with all of its files whole"
  )


def _changed(path: str, name: str) -> InputError:
  return InputError(
    f"{path} is not the network that was saved: {name} is damaged, its SHA-256 is another than "
    "when it was written; take a copy of the directory that is whole"
  )
