"""Tests of exported StableHLO files, which are read back and run without this package."""

import jax
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_same, random_mask


@pytest.fixture
def small(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  mask = random_mask(graph, np.random.default_rng(0))
  return gp.compact(graph, example_b.eval_fn, example_b.variables, mask)


def read(path):
  with ir.Context() as context:
    stablehlo.register_dialect(context)
    return str(stablehlo.deserialize_portable_artifact(context, path.read_bytes()))


def test_a_fixed_batch_runs_on_xla_alone(small, example_b, tmp_path):
  gp.export_stablehlo(tmp_path / "net.mlirbc", small, example_b.x, batch=4)
  text = read(tmp_path / "net.mlirbc")
  assert "custom_call" not in text
  device = jax.devices("cpu")[0]
  program = device.client.compile_and_load(text, [device])
  (logits,) = program.execute([jax.device_put(example_b.x[:4], device)])
  assert_same(logits, small.apply(small.variables, example_b.x[:4]))


# JAX computes in 32 bits by default, so both dtypes are exported as float32.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_batch_is_dynamic_unless_given(dtype, small, example_b, tmp_path):
  gp.export_stablehlo(tmp_path / "net.mlirbc", small, example_b.x.astype(dtype))
  text = read(tmp_path / "net.mlirbc")
  assert "@main(%arg0: tensor<?x8x8x2xf32>) -> (tensor<?x5xf32>" in text
  calls = [line for line in text.splitlines() if "custom_call" in line]
  assert len(calls) == 1
  assert "@shape_assertion" in calls[0]


def test_nothing_is_overwritten(small, example_b, tmp_path):
  path = tmp_path / "net.mlirbc"
  path.write_text("mine")
  with pytest.raises(gp.InputError, match=r"net\.mlirbc exists"):
    gp.export_stablehlo(path, small, example_b.x)
  with pytest.raises(gp.InputError, match="batch 0"):
    gp.export_stablehlo(tmp_path / "other", small, example_b.x, batch=0)
  assert path.read_text() == "mine"
  assert [p.name for p in tmp_path.iterdir()] == ["net.mlirbc"]
