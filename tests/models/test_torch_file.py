"""Tests of reading checkpoint files written by hand, and of refusing hostile and damaged files."""

import json
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import gatprune_jax as gp
from gatprune_jax.models import read_torch
from tests.models.pickles import call, dictionary, opcodes, storage, tensor, write_legacy, write_zip

WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])
# The tests cut tensors out of these elements, 0 to 11.
TWELVE = np.arange(12, dtype="<f4")
PLACE = storage("FloatStorage", "7", 12)


@pytest.fixture
def path(tmp_path):
  return tmp_path / "checkpoint.pt"


@WRITERS
def test_offsets_and_strides_cut_tensors_out_of_one_storage(write, path):
  content = dictionary(
    plain=tensor(PLACE, 0, (3, 4), (4, 1)),
    transposed=tensor(PLACE, 0, (4, 3), (1, 4)),
    column=tensor(PLACE, 1, (3,), (4,)),
    repeated=tensor(PLACE, 5, (2, 2), (0, 1)),
    scalar=tensor(PLACE, 11, (), ()),
    empty=tensor(PLACE, 12, (0, 3), (3, 1)),
    parameter=call("torch._utils._rebuild_parameter", tensor(PLACE, 2, (2,), (1,)), b"\x88", b"N"),
  )
  write(path, content, {"7": TWELVE.tobytes()})
  tensors = read_torch(path)
  matrix = TWELVE.reshape(3, 4)
  expected = {
    "plain": matrix,
    "transposed": matrix.T,
    "column": matrix[:, 1],
    "repeated": np.array([[5, 6], [5, 6]], np.float32),
    "scalar": np.float32(11),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": TWELVE[2:4],
  }
  assert tensors.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(tensors[name], value, strict=True)


@WRITERS
@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    ("DoubleStorage", np.float64),
    ("HalfStorage", np.float16),
    ("BFloat16Storage", jnp.bfloat16),
    ("LongStorage", np.int64),
    ("BoolStorage", np.bool_),
  ],
)
def test_storages_have_their_dtype(write, name, dtype, path):
  values = np.array([0, 1, 1, 0.5]).astype(dtype)
  content = dictionary(x=tensor(storage(name, "0", 4), 0, (4,), (1,)))
  options = {"item_size": values.itemsize} if write is write_legacy else {}
  write(path, content, {"0": values.tobytes()}, **options)
  assert read_torch(path)["x"].dtype == dtype
  np.testing.assert_array_equal(read_torch(path)["x"], values)


@WRITERS
@pytest.mark.parametrize("nest", ["state_dict", "model", "model_state_dict", "net"])
def test_tensors_are_found_in_a_nest(write, nest, path):
  state = dictionary(x=tensor(PLACE, 0, (12,), (1,)), epoch=opcodes(3))
  optimizer = dictionary(momentum=tensor(PLACE, 0, (12,), (1,)))
  write(
    path,
    dictionary(best=opcodes(91.8), optimizer=optimizer, **{nest: state}),
    {"7": TWELVE.tobytes()},
  )
  assert list(read_torch(path)) == ["x"]


def test_a_dictionary_that_holds_itself_ends(path):
  # The opcodes are EMPTY_DICT, MEMOIZE, "model", a reference to the dictionary, and SETITEM.
  write_zip(path, b"}q\x01" + opcodes("model").replace(b"q\x00", b"") + b"h\x01s", {})
  with pytest.raises(gp.InputError, match="holds no tensors"):
    read_torch(path)


def test_safetensors_with_bfloat16(path):
  # The file has eight bytes of length, a header in JSON, and the elements. A bfloat16 is the upper
  # half of a float32.
  half = (TWELVE.view(np.uint32) >> 16).astype("<u2").tobytes()
  header = json.dumps({"x": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}}).encode()
  path.write_bytes(len(header).to_bytes(8, "little") + header + half)
  assert read_torch(path)["x"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(read_torch(path)["x"].astype(np.float32), TWELVE.reshape(3, 4))


def test_safetensors_of_any_header_length(path):
  # The length of the header comes first. For some lengths the file has the first byte of a pickle
  # or of a zip archive.
  first_bytes = set()
  for length in range(300):
    safetensors.numpy.save_file({"x": TWELVE}, path, {"note": "n" * length})
    first_bytes.add(path.read_bytes()[0])
    np.testing.assert_array_equal(read_torch(path)["x"], TWELVE)
  assert {0x80, ord("P")} <= first_bytes


class Runs:
  """An object whose pickle runs a command when an ordinary unpickler reads the pickle."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


@WRITERS
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(write, path, tmp_path):
  marker = tmp_path / "ran"
  hostile = opcodes(Runs(f"touch {marker}"))
  write(path, dictionary(x=tensor(PLACE, 0, (12,), (1,)), y=hostile), {"7": TWELVE.tobytes()})
  with pytest.raises(gp.InputError, match=f"{os.system.__module__}.system, which is refused"):
    read_torch(path)
  path.write_bytes(b"\x80\x02" + hostile + b".")
  with pytest.raises(gp.InputError, match=f"{os.system.__module__}.system, which is refused"):
    read_torch(path)
  assert not marker.exists()
  pickle.loads(path.read_bytes())
  assert marker.exists()  # the pickle does run the command


@pytest.mark.parametrize(
  "name",
  [
    "builtins.eval",
    "builtins.getattr",
    "torch.load",
    "torch.nn.modules.conv.Conv2d",
    "numpy.core.multiarray._reconstruct",
    "collections.defaultdict",
  ],
)
def test_everything_but_tensors_is_refused_by_name(name, path):
  write_zip(path, dictionary(x=call(name)), {})
  with pytest.raises(gp.InputError, match=f"asks for {name}, which is refused"):
    read_torch(path)


@pytest.mark.parametrize(
  ("offset", "shape", "strides"),
  [(0, (13,), (1,)), (1, (3, 4), (4, 1)), (0, (2,), (12,)), (12, (), ()), (0, (2,), (1 << 62,))],
)
def test_tensors_outside_their_storage_are_refused(offset, shape, strides, path):
  write_zip(path, dictionary(x=tensor(PLACE, offset, shape, strides)), {"7": TWELVE.tobytes()})
  with pytest.raises(gp.InputError, match="tensor x reaches past the 12 elements"):
    read_torch(path)


@pytest.mark.parametrize(
  ("offset", "shape", "strides"),
  [(-1, (2,), (1,)), (0, (-2,), (1,)), (11, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_impossible_tensors_are_refused(offset, shape, strides, path):
  write_zip(path, dictionary(x=tensor(PLACE, offset, shape, strides)), {"7": TWELVE.tobytes()})
  with pytest.raises(gp.InputError, match="impossible offset, shape and strides"):
    read_torch(path)


def test_tensors_with_pending_signs_are_refused(path):
  for flags in ({"neg": True}, {"conj": True, "neg": False}):
    write_zip(path, dictionary(x=tensor(PLACE, 0, (12,), (1,), flags)), {"7": TWELVE.tobytes()})
    with pytest.raises(gp.InputError, match="whose negation or conjugation is still to be done"):
      read_torch(path)
  for flags in (None, {}, {"neg": False}):
    write_zip(path, dictionary(x=tensor(PLACE, 0, (12,), (1,), flags)), {"7": TWELVE.tobytes()})
    np.testing.assert_array_equal(read_torch(path)["x"], TWELVE)


def test_big_endian_is_refused(path):
  content = dictionary(x=tensor(PLACE, 0, (12,), (1,)))
  write_zip(path, content, {"7": TWELVE.tobytes()}, byteorder=b"big")
  with pytest.raises(gp.InputError, match="big-endian"):
    read_torch(path)
  write_legacy(path, content, {"7": TWELVE.tobytes()}, little_endian=False)
  with pytest.raises(gp.InputError, match="big-endian"):
    read_torch(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_files_cut_short_anywhere_are_refused(form, path):
  if form == "safetensors":
    safetensors.numpy.save_file({"x": TWELVE}, path)
  else:
    write = write_zip if form == "zip" else write_legacy
    write(path, dictionary(x=tensor(PLACE, 0, (12,), (1,))), {"7": TWELVE.tobytes()})
  whole = path.read_bytes()
  read_torch(path)
  for length in range(len(whole)):
    path.write_bytes(whole[:length])
    with pytest.raises(gp.InputError, match=str(path)):
      read_torch(path)


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "no checkpoint"),
    (b"\x89PNG\r\n\x1a\n and so on", "no checkpoint"),
    (pickle.dumps({"x": 1}), "not one of torch.save"),
    (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1002, 2), "version 1002"),
  ],
)
def test_other_files_are_refused(data, message, path):
  path.write_bytes(data)
  with pytest.raises(gp.InputError, match=message):
    read_torch(path)


def test_other_contents_are_refused(path, tmp_path):
  write_zip(path, opcodes([1, 2]), {})
  with pytest.raises(gp.InputError, match="holds a list"):
    read_torch(path)
  write_zip(path, dictionary(x=tensor(PLACE, 0, (12,), (1,))), {})
  with pytest.raises(gp.InputError, match="damaged or cut short"):
    read_torch(path)
  write_zip(path, dictionary(x=opcodes(1)), {})
  with pytest.raises(gp.InputError, match="holds no tensors: save a state_dict"):
    read_torch(path)
  with pytest.raises(gp.InputError, match=r"none\.pt cannot be read: No such file"):
    read_torch(tmp_path / "none.pt")
