"""Writes checkpoint files of torch.save by hand, opcode by opcode, without PyTorch."""

import pickle
import zipfile

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def opcodes(value):
  """Returns the opcodes that push a value of plain Python: its pickle without PROTO and STOP."""
  return pickle.dumps(value, protocol=2)[2:-1]


def call(name, *arguments):
  """Returns the opcodes that push `module.name(*arguments)`; the arguments are opcodes too."""
  module, name = name.rsplit(".", 1)
  return b"c%b\n%b\n(%btR" % (module.encode(), name.encode(), b"".join(arguments))


def storage(dtype, key, num_elements):
  fields = [opcodes("storage"), b"ctorch\n%b\n" % dtype.encode()]
  fields += [opcodes(field) for field in (key, "cpu", num_elements)]
  return b"(%btQ" % b"".join(fields)


def tensor(place, offset, shape, strides, *flags):
  numbers = [opcodes(number) for number in (offset, shape, strides, False)]
  hooks = call("collections.OrderedDict")
  return call("torch._utils._rebuild_tensor_v2", place, *numbers, hooks, *map(opcodes, flags))


def dictionary(**entries):
  items = b"".join(opcodes(name) + value for name, value in entries.items())
  return b"}(%bu" % items


def write_zip(path, content, storages, byteorder=b"little"):
  """Writes a file in the format since PyTorch 1.6.

  Args:
    path: path of the file.
    content: opcodes of the saved object.
    storages: {key: bytes of the elements}.
    byteorder: b"little" or b"big".
  """
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("weights/data.pkl", b"\x80\x02" + content + b".")
    archive.writestr("weights/byteorder", byteorder)
    for key, data in storages.items():
      archive.writestr(f"weights/data/{key}", data)


def write_legacy(path, content, storages, item_size=4, little_endian=True):
  """Writes a file in the format before PyTorch 1.6.

  The file has three pickles, the content, the keys, then counts and raw elements.

  Args:
    path: path of the file.
    content: opcodes of the saved object.
    storages: {key: bytes of the elements}.
    item_size: bytes of one element.
    little_endian: the byte order that the header states.
  """
  system = {"protocol_version": VERSION, "little_endian": little_endian, "type_sizes": {}}
  parts = [pickle.dumps(header, protocol=2) for header in (MAGIC, VERSION, system)]
  parts += [b"\x80\x02" + content + b".", pickle.dumps(list(storages), protocol=2)]
  for data in storages.values():
    parts += [(len(data) // item_size).to_bytes(8, "little"), data]
  path.write_bytes(b"".join(parts))
