"""Tests of compilation with options, which depend on the version of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.runtime import compilation, cores


def convolve(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.fixture
def options(monkeypatch):
  """Yields a function that sets the options; the cache of options is cleared before and after."""
  compilation._compiler_options.cache_clear()
  yield lambda **values: monkeypatch.setattr(compilation, "_CPU_OPTIONS", values)
  compilation._compiler_options.cache_clear()


@pytest.mark.parametrize("one_core_each", [False, True])
def test_same_results_as_without_options(one_core_each, monkeypatch):
  monkeypatch.setattr(cores, "are_devices", lambda: one_core_each)
  keys = jax.random.split(jax.random.key(0))
  x, w = jax.random.normal(keys[0], (2, 8, 8, 32)), jax.random.normal(keys[1], (3, 3, 32, 32))
  expected = convolve(x, w)
  ours = compilation.jit(convolve, shared=True, donate_argnums=0)
  np.testing.assert_allclose(ours(jnp.array(x), w), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are the CPU backend's")
@pytest.mark.parametrize(
  ("shared", "one_core_each", "library"),
  [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_convolutions_go_to_the_library_where_devices_have_a_core_each(
  shared, one_core_each, library, monkeypatch
):
  monkeypatch.setattr(cores, "are_devices", lambda: one_core_each)
  arguments = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))
  program = compilation.jit(convolve, shared=shared).lower(*arguments).compile().as_text()
  assert (" convolution(" in program, "ynn" in program) == (True, library)


def test_options_that_xla_does_not_know_are_left_out(options):
  options(xla_no_such_option="1", xla_cpu_scheduler_type="NO_SUCH_TYPE")
  assert compilation._compiler_options("cpu", False) == {}
  assert compilation.jit(jnp.sin)(0.0) == 0.0


def test_a_program_that_runs_once_draws_the_same_numbers():
  init = lambda key: jax.random.truncated_normal(key, -2, 2, (3, 3, 16, 16))
  key = jax.random.key(0)
  once = compilation.call_once(init, key)
  np.testing.assert_allclose(once, jax.jit(init)(key), rtol=1e-6, atol=1e-6)


def test_no_options_on_accelerators():
  assert compilation._compiler_options("tpu", False) is None
