"""Tests of exported ONNX files, which onnxruntime runs."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import Compact
from tests.channels.files.networks_out import (
  NETWORKS,
  OPERATIONS,
  W,
  X,
  assert_no_path_of_this_machine,
  operation,
)
from tests.channels.laws import assert_same

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def assert_equal_outputs(path, small, x):
  """Raises unless a file computes in onnxruntime what the network computes in JAX."""
  session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
  (name,) = [entry.name for entry in session.get_inputs()]
  expected = small.apply(small.variables, x)
  found = session.run(None, {name: x})
  for one, other in zip(found, jax.tree.leaves(expected), strict=True):
    assert one.dtype == other.dtype
    assert_same(one, other, 1e-4)


@pytest.mark.parametrize("make", NETWORKS)
def test_networks_of_any_batch_size(make, tmp_path):
  small, x = make()
  gp.export_onnx(tmp_path / "net.onnx", small, x)
  assert_equal_outputs(tmp_path / "net.onnx", small, x[:2])
  assert_no_path_of_this_machine(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, tmp_path):
  small, x = operation(name)
  gp.export_onnx(tmp_path / "any.onnx", small, x)
  gp.export_onnx(tmp_path / "two.onnx", small, x, batch=2)
  assert_equal_outputs(tmp_path / "any.onnx", small, np.concatenate([x, x + 1]))
  assert_equal_outputs(tmp_path / "two.onnx", small, x[1:])


def test_inputs_and_outputs_have_the_names_of_their_paths(tmp_path):
  apply = lambda v, x: {"sum": x["image"] @ v + x["shift"], "first": (x["image"][:, 0],)}
  x = {"image": X, "shift": np.float32(2)}
  gp.export_onnx(tmp_path / "net.onnx", Compact(apply, W), x)
  session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
  assert [entry.name for entry in session.get_inputs()] == ["x/image", "x/shift"]
  assert [entry.name for entry in session.get_outputs()] == ["y/first/0", "y/sum"]
  assert [entry.shape for entry in session.get_inputs()] == [["batch", 6], []]
  (found,) = session.run(["y/sum"], {"x/image": X, "x/shift": np.array(2, np.float32)})
  assert_same(found, X @ W + 2)


@pytest.mark.parametrize(
  ("apply", "message"),
  [
    (lambda v, x: jnp.sort(x @ v), "no equivalent of `sort` here"),
    (lambda v, x: jax.lax.fori_loop(0, 3, lambda _, y: y @ v, x), "no equivalent of `scan` here"),
    (
      lambda v, x: jax.lax.conv_transpose(
        (x @ v).reshape(-1, 6, 1), jnp.ones((3, 1, 2)), (2,), "SAME"
      ),
      "`conv_general_dilated` with zeros between the inputs",
    ),
  ],
)
def test_what_onnx_lacks_is_named(apply, message, tmp_path):
  with pytest.raises(gp.InputError, match=message) as error:
    gp.export_onnx(tmp_path / "net.onnx", Compact(apply, W), X)
  assert "\n" not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_a_function_of_certain_batch_sizes_needs_one(tmp_path):
  network = Compact(lambda v, x: jnp.concatenate([x @ v] * len(x)), W)
  with pytest.raises(gp.InputError, match=r"takes no batch of any size .* pass batch=NUMBER"):
    gp.export_onnx(tmp_path / "net.onnx", network, X)
  gp.export_onnx(tmp_path / "net.onnx", network, X, batch=2)
  assert_equal_outputs(tmp_path / "net.onnx", network, X[:2])


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
  # Python sees whether the batch is a number, and computes something else where it is not.
  apply = lambda v, x: x @ v if isinstance(x.shape[0], int) else x @ (v + 1)
  with pytest.raises(gp.InputError, match=r"onnxruntime, output y differs from JAX's by .* on 1"):
    gp.export_onnx(tmp_path / "net.onnx", Compact(apply, W), X)
  assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
  (tmp_path / "net.onnx").write_text("mine")
  with pytest.raises(gp.InputError, match=r"net\.onnx exists"):
    gp.export_onnx(tmp_path / "net.onnx", *operation("softmax"))
  with pytest.raises(gp.InputError, match="batch 0"):
    gp.export_onnx(tmp_path / "other.onnx", *operation("softmax"), batch=0)
  assert (tmp_path / "net.onnx").read_text() == "mine"
  with pytest.raises(gp.InputError, match="cannot be written: No such file or directory"):
    gp.export_onnx(tmp_path / "nowhere" / "net.onnx", *operation("softmax"))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  message = rf"{package} is not installed: .* pip install 'gatprune_jax\[onnx\]'"
  with pytest.raises(gp.InputError, match=message):
    gp.export_onnx(tmp_path / "net.onnx", *operation("softmax"))
  assert list(tmp_path.iterdir()) == []
