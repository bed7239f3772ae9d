"""What must hold for every traced function and mask, as assertions that tests share."""

import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from tests.channels.counting import count_macs, count_output_bytes


def random_mask(graph, rng, keep=0.5):
  """Random, with a channel in every group."""
  mask = rng.random(graph.num_channels) < keep
  for group in graph.groups:
    mask[rng.choice(group.channels)] = True
  return mask


def assert_same(actual, desired, tolerance=1e-5):
  """Equal within the tolerance, relative to the largest magnitude."""
  actual, desired = _array(actual), _array(desired)
  scale = max(np.abs(desired).max(initial=0), np.finfo(np.float32).tiny)
  np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * scale)


def _array(value):
  is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)  # of a module's random streams
  return np.asarray(jax.random.key_data(value) if is_key else value)


def assert_law(graph, fn, variables, mask, *args, allow_empty=False, tolerance=1e-5):
  """masked == compact on every output; returns the compact network."""
  small = gp.compact(graph, fn, variables, mask, allow_empty)
  masked = jax.jit(gp.masked(graph, fn))(variables, mask, *args)
  # Updated statistics are among the outputs of a train function.
  cut = gp.compact_state(graph, masked, mask, allow_empty)
  jax.tree.map(
    lambda *pair: assert_same(*pair, tolerance), cut, small.apply(small.variables, *args)
  )
  return small


def assert_costs(graph, small, mask, x):
  """MACs, bytes and parameters are those counted on the compact network."""
  assert gp.macs(graph, mask) == count_macs(small.apply, small.variables, x)
  written = count_output_bytes(small.apply, small.variables, x)
  if all(mask[group.channels].any() for group in graph.groups):
    assert gp.activation_bytes(graph, mask) == written
  else:  # a layer that lost all of its inputs is gone, and what it would write still counts
    assert gp.activation_bytes(graph, mask) >= written
  cut = zip(jax.tree.leaves(small.variables), graph.leaves, strict=True)
  assert gp.params(graph, mask) == sum(array.size for array, leaf in cut if leaf.is_parameter)
