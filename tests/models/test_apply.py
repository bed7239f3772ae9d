"""Tests of networks as functions, in both dtypes."""

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax import models


@pytest.fixture(scope="module")
def network():
  module = models.model("resnet8", 10, widths=(4, 8, 8))
  x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
  return module, jax.jit(module.init)(jax.random.key(1), x), x


def convolution_dtypes(fn, *args):
  """Returns the dtypes of the operands of every convolution in a traced function."""
  found, queue = set(), [jax.make_jaxpr(fn)(*args).jaxpr]
  while queue:
    for eqn in (jaxpr := queue.pop()).eqns:
      if eqn.primitive.name == "conv_general_dilated":
        found |= {str(var.aval.dtype) for var in eqn.invars}
    queue += jex.core.subjaxprs(jaxpr)
  return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_convolutions_compute_in_the_dtype(network, dtype):
  module, variables, x = network
  for make in (models.eval_function, models.train_function):
    assert convolution_dtypes(make(module, dtype), variables, x) == {dtype}


@pytest.mark.parametrize(
  ("backend", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")]
)
def test_automatic_dtype(network, backend, dtype, monkeypatch):
  module, variables, x = network
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  for make in (models.eval_function, models.train_function):
    assert convolution_dtypes(make(module, "auto"), variables, x) == {dtype}


def test_bfloat16_keeps_logits_and_statistics_in_float32_and_near(network):
  module, variables, x = network
  exact, exact_stats = jax.jit(models.train_function(module))(variables, x)
  logits, stats = jax.jit(models.train_function(module, "bfloat16"))(variables, x)
  assert {leaf.dtype for leaf in jax.tree.leaves((logits, stats))} == {jnp.dtype("float32")}
  # bfloat16 rounds to 8 bits, and ten layers with normalisation add up a few such rounding steps.
  error = jnp.sqrt(((logits - exact) ** 2).mean() / (exact**2).mean())
  assert 1e-4 < error < 2**-5
  for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(exact_stats), strict=True):
    np.testing.assert_allclose(a, b, atol=2**-5)


def test_gradients_of_bfloat16_computation_are_float32(network):
  module, variables, x = network
  apply = models.train_function(module, "bfloat16")
  grads = jax.eval_shape(jax.grad(lambda v: apply(v, x)[0].sum()), variables)
  assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
