"""Reads the format of saved networks that has no checksums and keeps variables in an npz file."""

import io
from typing import Any

import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.files.directory import Directory, read_file

FORMAT = 2
VARIABLES = "variables.npz"


def read(path: str, manifest: dict[str, Any]) -> Directory:
  """Reads the files of a saved network.

  Raises:
    InputError: if one is missing.
  """
  names = ("network.stablehlo", VARIABLES)
  return Directory(path, manifest, {name: read_file(path, name) for name in names})


def arrays(content: bytes, specs: list[dict[str, Any]]) -> list[np.ndarray]:
  """Returns the variables in the manifest's order, decoded from their bytes.

  Args:
    content: the npz file, which holds the bytes of each variable.
    specs: shape and dtype of each variable.
  """
  with np.load(io.BytesIO(content)) as stored:
    return [
      np.frombuffer(stored[f"arr_{i}"], jnp.dtype(v["dtype"])).reshape(v["shape"])
      for i, v in enumerate(specs)
    ]
