"""Compilation with options, which depend on the version of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax import compilation


def convolve(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.fixture
def options(monkeypatch):
  """Sets the options; what is known of others is forgotten before and after."""
  compilation._compiler_options.cache_clear()
  yield lambda **values: monkeypatch.setattr(compilation, "_CPU_OPTIONS", values)
  compilation._compiler_options.cache_clear()


def test_same_results_as_without_options():
  x, w = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))
  ours = compilation.jit(convolve, donate_argnums=0)
  np.testing.assert_allclose(ours(jnp.array(x), w), convolve(x, w), rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are the CPU backend's")
def test_convolutions_stay_xlas_own():
  arguments = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))
  program = compilation.jit(convolve).lower(*arguments).compile().as_text()
  assert " convolution(" in program
  assert "ynn" not in program


def test_options_that_xla_does_not_know_are_left_out(options):
  options(xla_no_such_option="1", xla_cpu_scheduler_type="NO_SUCH_TYPE")
  assert compilation._compiler_options("cpu") == {}
  assert compilation.jit(jnp.sin)(0.0) == 0.0


def test_no_options_on_accelerators():
  assert compilation._compiler_options("tpu") is None
