"""Tests of saved networks that were damaged, of the format before, and of what the files reveal."""

import json
import os
import site
import sys

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import random_mask

X = np.ones((2, 3), np.float32)
FILES = ("manifest.json", "network.stablehlo", "program.json", "variables.safetensors")


def saved(path):
  """Saves a small network, and returns its outputs for X."""
  fn = lambda v, x: jax.nn.relu(x @ v["a"]) @ v["b"]
  rng = np.random.default_rng(0)
  variables = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal((4, 2))}
  small = gp.compact(gp.trace(fn, variables, X), fn, variables, np.array([1, 0, 1, 1]))
  gp.save(path, small, X)
  return np.asarray(small.apply(small.variables, X))


@pytest.fixture
def directory(tmp_path):
  saved(tmp_path / "net")
  assert sorted(os.listdir(tmp_path / "net")) == list(FILES)
  return tmp_path / "net"


def refusal(directory):
  """Returns the sentence with which a directory is refused."""
  with pytest.raises(gp.InputError) as error:
    gp.load(directory)
  return str(error.value)


def test_every_flipped_bit_is_refused_in_one_sentence(directory, capfd):
  rng = np.random.default_rng(1)
  for number in range(200):
    path = directory / FILES[number % len(FILES)]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path.write_bytes(damaged)
    assert "\n" not in refusal(directory)
    path.write_bytes(whole)
  gp.load(directory)
  assert capfd.readouterr() == ("", "")


def test_every_truncation_is_refused_in_one_sentence(directory, capfd):
  rng = np.random.default_rng(2)
  for number in range(20):
    path = directory / FILES[number % len(FILES)]
    whole = path.read_bytes()
    path.write_bytes(whole[: rng.integers(len(whole))])
    assert "\n" not in refusal(directory)
    path.write_bytes(whole)
  gp.load(directory)
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name, directory):
  os.remove(directory / name)
  assert f"is not a saved network: {name} cannot be read (No such file" in refusal(directory)


def test_a_changed_file_is_named(directory):
  with open(directory / "variables.safetensors", "ab") as file:
    file.write(b" ")
  assert "variables.safetensors is damaged, its SHA-256 is another" in refusal(directory)


def as_format_2(directory, leave_out=()):
  """Rewrites a saved network in the format before, from the description of that format."""
  manifest = json.loads((directory / "manifest.json").read_text())
  loaded = gp.load(directory)
  data = [np.frombuffer(np.asarray(a).tobytes(), np.uint8) for a in loaded.variables.values()]
  arrays = {f"arr_{i}": a for i, a in enumerate(data) if i not in leave_out}
  np.savez(directory / "variables.npz", **arrays)
  keys = ("path", "shape", "dtype")
  variables = [{key: v[key] for key in keys} for v in manifest["variables"]]
  content = {"format": 2, "jax": manifest["jax"], "variables": variables}
  (directory / "manifest.json").write_text(json.dumps(content))
  for name in ("program.json", "variables.safetensors"):
    os.remove(directory / name)


def test_the_format_before_is_read(tmp_path):
  expected = saved(tmp_path / "net")
  as_format_2(tmp_path / "net")
  loaded = gp.load(tmp_path / "net")
  np.testing.assert_array_equal(loaded.apply(loaded.variables, X), expected)
  with pytest.raises(gp.InputError, match="cannot be trained further: it was saved by an earlier"):
    gp.load(tmp_path / "net", trainable=True)


def test_the_format_before_lacks_a_variable(directory):
  as_format_2(directory, leave_out=[0])
  assert "variables.npz cannot be read (KeyError: " in refusal(directory)


@pytest.mark.parametrize("name", ["network.stablehlo", "variables.npz"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_the_format_before_cut_short(name, share, directory):
  as_format_2(directory)
  content = (directory / name).read_bytes()
  (directory / name).write_bytes(content[: int(share * len(content))])
  assert f"is not a saved network: {name} cannot be read" in refusal(directory)


def test_another_format_is_refused(directory):
  (directory / "manifest.json").write_text('{"format": 9}')
  assert refusal(directory).endswith("has format 9: this version reads 2 and 3")


def test_no_file_holds_a_path_of_this_machine(example_b, tmp_path):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = random_mask(graph, np.random.default_rng(3))
  small = gp.compact(graph, e.eval_fn, e.variables, mask)
  gp.save(tmp_path / "net", small, e.x)
  gp.export_stablehlo(tmp_path / "net" / "net.mlirbc", small, e.x)
  here = {os.getcwd(), sys.prefix, *site.getsitepackages(), str(tmp_path)}
  for name in os.listdir(tmp_path / "net"):
    content = (tmp_path / "net" / name).read_bytes()
    assert b".py" not in content, name
    assert not [place for place in here if place.encode() in content], name
