"""Arrays as the bytes of a safetensors file, which other tools read by the arrays' names."""

from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.numpy

# The dtypes that every release of safetensors has. Arrays of other dtypes, such as int4, are
# stored as their bytes.
_NAMED = """
  bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 bfloat16 float32 float64
""".split()
_RESERVED = "__metadata__"  # a key of the format's own


def unique_names(paths: Sequence[str]) -> list[str]:
  """Returns a name for each path: the path itself unless it is taken, else one with a number.

  Keys that contain "/" can give two variables of one tree the same path.
  """
  names: list[str] = []
  taken = {_RESERVED}
  for path in paths:
    name, number = path, 2
    while name in taken or (name != path and name in paths):
      name, number = f"{path}~{number}", number + 1
    taken.add(name)
    names.append(name)
  return names


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns the content of a safetensors file with the arrays under their names."""
  stored = {
    name: array if array.dtype.name in _NAMED else np.frombuffer(array.tobytes(), np.uint8)
    for name, array in arrays.items()
  }
  return safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in stored.items()})


def decode_arrays(
  content: bytes, specs: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> dict[str, np.ndarray]:
  """Returns the arrays of a file that `encode_arrays` made.

  Args:
    content: the content of the file.
    specs: {name: shape and dtype} of every array.

  Raises:
    SafetensorError, KeyError or ValueError: the content is no such file, or has other arrays.
  """
  data = {name: tensor["data"] for name, tensor in safetensors.deserialize(content)}
  return {
    name: np.frombuffer(data[name], dtype).reshape(shape) for name, (shape, dtype) in specs.items()
  }
