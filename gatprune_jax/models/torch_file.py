"""Reads tensors from PyTorch checkpoints, without PyTorch and without running code in the files.

A checkpoint of `torch.save` is a pickle, and a pickle may call any function by its name. This
module resolves only a short list of names, and replaces PyTorch's functions by functions that
record their arguments.
"""

from collections import OrderedDict
from collections.abc import Callable
import functools
import io
import math
import pickle
from typing import Any, NamedTuple
import zipfile

import jax.numpy as jnp
import numpy as np
import safetensors

from gatprune_jax.errors import InputError

# The first two values in the older files of `torch.serialization`.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

# Dtypes by the names of PyTorch's storage classes, then by the dtype names of safetensors.
_DTYPES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(jnp.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
_SAFETENSORS_DTYPES = {
  "F64": _DTYPES["DoubleStorage"],
  "F32": _DTYPES["FloatStorage"],
  "F16": _DTYPES["HalfStorage"],
  "BF16": _DTYPES["BFloat16Storage"],
  "I64": _DTYPES["LongStorage"],
  "I32": _DTYPES["IntStorage"],
  "I16": _DTYPES["ShortStorage"],
  "I8": _DTYPES["CharStorage"],
  "U8": _DTYPES["ByteStorage"],
  "BOOL": _DTYPES["BoolStorage"],
}
_TORCH_DTYPES = (
  "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool double float half long int"
).split()
# Keys under which training programs save the network, beside an epoch number or optimizer state.
_NESTS = ("state_dict", "model", "model_state_dict", "net")


class _Storage(NamedTuple):
  dtype: str  # a key of _DTYPES
  key: str


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int  # in elements, like the strides
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_torch(path: str) -> dict[str, np.ndarray]:
  """Returns the named tensors of a checkpoint, as views of the file's bytes.

  The three formats in use are recognised by their first bytes: the pickle of `torch.save` before
  PyTorch 1.6, the zip archive of `torch.save` since then, and safetensors. If a pickle holds a
  dictionary under the key "state_dict", "model", "model_state_dict" or "net", the tensors of that
  dictionary are read. Values that are not tensors are left out.

  Args:
    path: the file.

  Returns:
    Name -> read-only array, with the shapes and dtypes of the file.

  Raises:
    InputError: if the file does not exist, is no checkpoint, is damaged or big-endian, holds no
      tensors, or is a pickle that asks for anything but tensors in dictionaries.
  """
  try:
    with open(path, "rb") as file:
      data = file.read()
  except OSError as error:
    raise InputError(f"checkpoint {path} cannot be read: {error.strerror}") from error
  try:
    # A safetensors file starts with the length of its JSON header in 8 bytes. These bytes may look
    # like the prefix of another format, so safetensors is tested first.
    if data[8:9] == b"{":
      tensors = _read_safetensors(data)
    elif data.startswith(b"PK\3\4"):
      tensors = _read_zip(data)
    elif data.startswith(b"\x80"):
      tensors = _read_legacy(data)
    else:
      raise InputError("no checkpoint of torch.save or safetensors: its first bytes are neither's")
  except InputError as error:
    raise InputError(f"checkpoint {path}: {error}") from error
  except Exception as error:  # bytes that only look like a pickle can raise any exception
    reason = f"{type(error).__name__}: {error}"
    raise InputError(f"checkpoint {path} is damaged or cut short ({reason})") from error
  if not tensors:
    raise InputError(f"checkpoint {path} holds no tensors: save a state_dict")
  return tensors


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
  tensors = {}
  for name, tensor in safetensors.deserialize(data):
    if tensor["dtype"] not in _SAFETENSORS_DTYPES:
      raise InputError(f"tensor {name} has dtype {tensor['dtype']}: save it as F32")
    dtype = _SAFETENSORS_DTYPES[tensor["dtype"]]
    tensors[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    tensors[name].flags.writeable = False
  return tensors


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    # All entries lie in one folder, named after the file at the time of saving.
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
      raise InputError("a zip archive without the data.pkl of torch.save is no checkpoint")
    root = names[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist():
      _check_little_endian(archive.read(f"{root}byteorder") == b"little")
    content = _Unpickler(io.BytesIO(archive.read(names[0]))).load()
    return _arrays(content, functools.cache(lambda key: archive.read(f"{root}data/{key}")))


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
  stream = io.BytesIO(data)
  if _Unpickler(stream).load() != MAGIC_NUMBER:
    raise InputError("a pickle, but not one of torch.save: save it with torch.save or safetensors")
  version = _Unpickler(stream).load()
  if version != PROTOCOL_VERSION:
    raise InputError(f"version {version} of the format is unknown: {PROTOCOL_VERSION} is read")
  _check_little_endian(_Unpickler(stream).load()["little_endian"])
  unpickler = _Unpickler(stream)
  content = unpickler.load()
  storages = {}
  for key in _Unpickler(stream).load():
    num_elements = int.from_bytes(stream.read(8), "little")
    num_bytes = num_elements * _DTYPES[unpickler.storages[key].dtype].itemsize
    storages[key] = stream.read(num_bytes)
    if len(storages[key]) != num_bytes:
      raise InputError(f"cut short: storage {key} has {len(storages[key])} of {num_bytes} bytes")
  return _arrays(content, storages.__getitem__)


def _check_little_endian(little: bool) -> None:
  if not little:
    raise InputError("big-endian tensors are not read: save it on a little-endian machine")


def _arrays(content: Any, storage_bytes: Callable[[str], bytes]) -> dict[str, np.ndarray]:
  """Returns the tensors of the innermost dictionary under a key of `_NESTS`, as arrays."""
  for _ in _NESTS:  # a bound, since a dictionary in a pickle may contain itself
    nests = [n for n in _NESTS if isinstance(content, dict) and isinstance(content.get(n), dict)]
    content = content[nests[0]] if nests else content
  if not isinstance(content, dict):
    raise InputError(f"holds a {type(content).__name__.lstrip('_')}: save a dictionary of tensors")
  return {
    str(name): _array(str(name), tensor, storage_bytes(tensor.storage.key))
    for name, tensor in content.items()
    if isinstance(tensor, _Tensor)
  }


def _array(name: str, tensor: _Tensor, data: bytes) -> np.ndarray:
  """Returns the view of a storage that offset, shape and strides define."""
  flat = np.frombuffer(data, _DTYPES[tensor.storage.dtype])
  numbers = (tensor.offset, *tensor.shape, *tensor.strides)
  if min(numbers) < 0 or len(tensor.shape) != len(tensor.strides):
    raise InputError(f"tensor {name} has impossible offset, shape and strides {tensor[1:]}")
  steps = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)]
  # Without this check a hostile file could read this process's memory.
  if math.prod(tensor.shape) and tensor.offset + sum(steps) >= flat.size:
    raise InputError(f"tensor {name} reaches past the {flat.size} elements of its storage")
  strides = [stride * flat.itemsize for stride in tensor.strides]
  view = flat[tensor.offset :]
  return np.lib.stride_tricks.as_strided(view, tensor.shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
  """Unpickler of dictionaries, lists, numbers, strings and `_Tensor` records; refuses the rest."""

  def __init__(self, stream: io.BytesIO):
    super().__init__(stream, encoding="utf-8")
    self.storages: dict[str, _Storage] = {}
    self._allowed = _allowed_globals()

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in self._allowed:
      raise InputError(
        f"its pickle asks for {module}.{name}, which is refused because it could run code: "
        "save only the network's state_dict"
      )
    return self._allowed[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key = pid[:3]
    if kind != "storage" or dtype not in _DTYPES:
      raise InputError(f"its pickle refers to a {kind!r}, of which only storages are read")
    if len(pid) > 5 and pid[5] is not None:
      raise InputError("storages that are views of others are not read: save clones of the tensors")
    return self.storages.setdefault(key, _Storage(dtype, key))


def _allowed_globals() -> dict[tuple[str, str], Any]:
  """Returns what a pickle may name, by module and name.

  The functions are created anew for each file, since a pickle may set attributes on them.
  """

  def tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, flags=None):
    if flags and any(flags.values()):  # "neg" or "conj": the stored numbers are not the values
      raise InputError(
        "has tensors whose negation or conjugation is still to be done: save what their "
        "resolve_neg().resolve_conj() returns"
      )
    return _Tensor(_Storage(*storage), offset, tuple(shape), tuple(strides))

  return {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): lambda shape: tuple(shape),
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    **{("torch", storage): storage for storage in _DTYPES},
    **{("torch", dtype): f"torch.{dtype}" for dtype in _TORCH_DTYPES},
  }
