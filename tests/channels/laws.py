"""Assertions, shared by several tests, of what must hold for every traced function and mask."""

import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from tests.channels.counting import count_macs


def random_mask(graph, rng, keep=0.5, least=1):
  """Returns a random mask `[N]` bool that keeps some channels in every group.

  Args:
    graph: the channel graph, of N channels.
    rng: a NumPy generator.
    keep: the probability that a channel is kept.
    least: the fewest channels that a group of as many keeps.
  """
  mask = rng.random(graph.num_channels) < keep
  for group in graph.groups:
    mask[rng.choice(group.channels, min(least, len(group.channels)), replace=False)] = True
  return mask


def assert_same(actual, desired, tolerance=1e-5):
  """Raises where arrays differ by more than tolerance times the largest magnitude of `desired`.

  Args:
    actual: an array of any shape.
    desired: an array of the same shape.
    tolerance: relative to the largest magnitude.
  """
  actual, desired = _array(actual), _array(desired)
  scale = max(np.abs(desired).max(initial=0), np.finfo(np.float32).tiny)
  np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * scale)


def _array(value):
  # Modules with dropout hold random keys, which NumPy cannot read directly.
  is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
  return np.asarray(jax.random.key_data(value) if is_key else value)


def assert_law(graph, fn, variables, mask, *args, allow_empty=False, tolerance=1e-5, masked=None):
  """Raises unless masked and compact agree on every output; returns the compact network.

  Args:
    graph: the channel graph of the network.
    fn: a function of (variables, *args).
    variables: the dense variables.
    mask: `[N]`, the channels to keep.
    *args: the other arguments of fn.
    allow_empty: whether the mask may remove whole groups.
    tolerance: relative to the largest magnitude of an output.
    masked: the compiled masked network, for tests of several masks.
  """
  small = gp.compact(graph, fn, variables, mask, allow_empty)
  masked = masked or jax.jit(gp.masked(graph, fn))
  outputs = masked(variables, mask, *args)
  # A train function also returns updated statistics; they are cut to the kept channels first.
  cut = gp.compact_state(graph, outputs, mask, allow_empty)
  # One program compiles faster than its operations one by one.
  own = jax.jit(small.apply)(small.variables, *args)
  jax.tree.map(lambda *pair: assert_same(*pair, tolerance), cut, own)
  return small


def assert_costs(graph, small, mask, x):
  """Raises unless every resource equals the count on the compact network.

  Args:
    graph: the channel graph of the dense network.
    small: the compact network under the mask.
    mask: `[N]`, the channels to keep.
    x: a batch of inputs, `[B, ...]`.
  """
  assert gp.macs(graph, mask) == count_macs(small.apply, small.variables, x)
  again = gp.trace(small.apply, small.variables, x)
  held = gp.activation_bytes(again, np.ones(again.num_channels), batch=3)
  if all(mask[group.channels].any() for group in graph.groups):
    assert gp.activation_bytes(graph, mask, batch=3) == held
  else:
    # The compact network has no layer that lost all of its inputs, but the graph still counts the
    # bytes which that layer would write.
    assert gp.activation_bytes(graph, mask, batch=3) >= held
  assert gp.weight_bytes(graph, mask) == sum(a.nbytes for a in jax.tree.leaves(small.variables))
  cut = zip(jax.tree.leaves(small.variables), graph.leaves, strict=True)
  assert gp.params(graph, mask) == sum(array.size for array, leaf in cut if leaf.is_parameter)
