"""Tests of exported LiteRT files, which its interpreter runs."""

import sys

import jax
import jax.numpy as jnp
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

pytest.importorskip("litert_converter")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")


def assert_equal_outputs(path, small, x):
  """Raises unless a file computes in the interpreter what the network computes in JAX."""
  model = interpreter.Interpreter(model_path=str(path))
  assert list(model.get_signature_list()) == ["serving_default"]
  found = model.get_signature_runner()(x=x)
  expected = jax.tree.leaves_with_path(small.apply(small.variables, x))
  assert len(found) == len(expected)
  for keys, value in expected:
    key = jax.tree_util.keystr(keys, simple=True, separator="/")
    assert_same(found[f"y/{key}" if key else "y"], value, 1e-4)


@pytest.mark.parametrize("make", NETWORKS)
def test_networks(make, tmp_path):
  small, x = make()
  gp.export_tflite(tmp_path / "net.tflite", small, x)
  assert_equal_outputs(tmp_path / "net.tflite", small, x[:1])
  assert_no_path_of_this_machine(tmp_path / "net.tflite")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, tmp_path):
  small, x = operation(name)
  gp.export_tflite(tmp_path / "net.tflite", small, x, batch=2)
  assert_equal_outputs(tmp_path / "net.tflite", small, x[1:])


@pytest.mark.parametrize(
  ("apply", "message"),
  [
    (lambda v, x: jnp.sort(x @ v), "no equivalent of STABLEHLO_SORT;"),
    (lambda v, x: jnp.abs(jnp.fft.fft(x @ v)), "no equivalent of .*fft"),
  ],
)
def test_what_litert_lacks_is_named(apply, message, tmp_path):
  with pytest.raises(gp.InputError, match=message) as error:
    gp.export_tflite(tmp_path / "net.tflite", Compact(apply, W), X)
  assert "\n" not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
  (tmp_path / "net.tflite").write_text("mine")
  with pytest.raises(gp.InputError, match=r"net\.tflite exists"):
    gp.export_tflite(tmp_path / "net.tflite", *operation("softmax"))
  for batch in (0, None):
    with pytest.raises(gp.InputError, match=f"batch {batch}"):
      gp.export_tflite(tmp_path / "other.tflite", *operation("softmax"), batch=batch)
  assert (tmp_path / "net.tflite").read_text() == "mine"


@pytest.mark.parametrize("package", ["litert_converter.mlir.ir", "ai_edge_litert.interpreter"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  message = rf"{package} is not installed: .* pip install 'gatprune_jax\[litert\]'"
  with pytest.raises(gp.InputError, match=message):
    gp.export_tflite(tmp_path / "net.tflite", *operation("softmax"))
  assert list(tmp_path.iterdir()) == []
