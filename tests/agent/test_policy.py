"""Tests of the policy: its distribution, and its symmetry under renumbered channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import (
  Observation,
  Policy,
  PolicyConfig,
  bits,
  bounded,
  dynamic_features,
  sample,
  with_embedding,
)
from gatprune_jax.kernels.attention import FLAGS, Bipartite, lay_out


def random_observation(rng, channels=7, layers=2):
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  sets = []
  for senders, receivers in [([0, 1, 2], [3, 4, 5, 6]), ([3, 4, 5, 6], [0, 1, 2]), ([7], [0, 1]),
                             ([8], [3, 6]), ([3, 6], [8])]:  # fmt: skip
    norms = normal(len(senders), len(receivers))
    sets.append(Bipartite(np.array(senders), np.array(receivers), normal(len(FLAGS)), norms))
  group_of = np.array([0, 0, 0, 1, 1, 1, 1], np.int32)
  edges = lay_out(sets, channels + layers)
  return Observation(normal(channels, 6), normal(layers, 5), edges, group_of)


def randomised(variables, rng):
  """Returns the variables with noise added, because head and embedding start at zero."""
  return jax.tree.map(
    lambda a: a + 0.3 * rng.standard_normal(a.shape).astype(np.float32), variables
  )


def test_channels_may_be_renumbered():
  rng = np.random.default_rng(0)
  policy = Policy(PolicyConfig(layers=2, heads=2, head_features=4, edge_norms=True), num_groups=2)
  observation = random_observation(rng)
  dynamic = rng.standard_normal((7, 3)).astype(np.float32)
  variables = randomised(jax.jit(policy.init)(jax.random.key(0), observation, dynamic), rng)
  logits_of = jax.jit(policy.apply)
  logits = logits_of(variables, observation, dynamic)

  new_id = rng.permutation(7)  # channel c becomes new_id[c]
  old_of = np.argsort(new_id)
  renumber = lambda ids: np.where(ids < 7, new_id[np.minimum(ids, 6)], ids).astype(np.int32)
  moved = Observation(
    observation.channels[old_of],
    observation.layers,
    tuple(
      b._replace(senders=renumber(b.senders), receivers=renumber(b.receivers))
      for b in observation.edges
    ),
    observation.group_of[old_of],
  )
  variables = with_embedding(variables, variables["params"]["embedding"][old_of])
  moved_logits = logits_of(variables, moved, dynamic[old_of])
  np.testing.assert_allclose(moved_logits[new_id], logits, atol=1e-5)


def test_first_logits_are_the_embedding_within_bounds():
  rng = np.random.default_rng(1)
  policy = Policy(PolicyConfig(layers=1, heads=2, head_features=4), num_groups=2)
  observation, dynamic = random_observation(rng), np.zeros((7, 3), np.float32)
  variables = jax.jit(policy.init)(jax.random.key(0), observation, dynamic)
  embedding = jnp.array([-20.0, -8, -1, 0, 1, 8, 20])
  logits = jax.jit(policy.apply)(with_embedding(variables, embedding), observation, dynamic)
  np.testing.assert_allclose(logits, [-8, -8, -1, 0, 1, 8, 8], atol=1e-6)


def test_logits_beyond_the_bounds_find_back():
  # Descent goes against the gradient, so a cotangent of +1 lowers a logit. Only cotangents that
  # would move a logit further beyond its bound are set to zero.
  logits = jnp.array([9.0, 9, -9, -9, 7, 7])
  asked = jnp.array([1.0, -1, 1, -1, 1, -1])
  _, pull = jax.vjp(bounded, logits)
  np.testing.assert_array_equal(pull(asked)[0], [1, 0, 0, -1, 1, -1])


def test_the_graph_matters():
  rng = np.random.default_rng(2)
  policy = Policy(PolicyConfig(layers=2, heads=2, head_features=4), num_groups=2)
  observation, dynamic = random_observation(rng), np.zeros((7, 3), np.float32)
  variables = randomised(jax.jit(policy.init)(jax.random.key(0), observation, dynamic), rng)
  changed = observation._replace(
    edges=tuple(b._replace(norms=2 * b.norms) for b in observation.edges)
  )
  logits_of = jax.jit(policy.apply)
  difference = logits_of(variables, changed, dynamic) - logits_of(variables, observation, dynamic)
  assert np.abs(difference).max() > 1e-3


def test_bits_follow_their_probabilities():
  logits = jnp.array([-2.0, 0.0, 3.0])
  p = 1 / (1 + np.exp(-np.asarray(logits)))
  drawn = sample(jax.random.key(0), bits(jnp.broadcast_to(logits, (20_000, 3))))
  assert drawn.dtype == bool
  np.testing.assert_allclose(drawn.mean(0), p, atol=4 * np.sqrt(0.25 / 20_000))
  np.testing.assert_allclose(bits(logits).log_prob(jnp.ones(3, bool)), np.log(p), rtol=1e-5)
  np.testing.assert_allclose(bits(logits).log_prob(jnp.zeros(3, bool)), np.log(1 - p), rtol=1e-5)
  np.testing.assert_allclose(
    bits(logits).entropy(), -p * np.log(p) - (1 - p) * np.log(1 - p), rtol=1e-5
  )
  q = 1 / (1 + np.exp(1.0))
  expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  np.testing.assert_allclose(
    bits(logits).kl_divergence(bits(jnp.full(3, -1.0))), expected, rtol=1e-4
  )


def test_dynamic_features_by_hand():
  features = dynamic_features(
    jnp.array([True, False]), jnp.array([True, True]), jnp.array([0.5, -0.25])
  )
  np.testing.assert_allclose(features, [[1, 1, 0.5, -0.25], [0, 1, 0.5, -0.25]])


def test_sizes_must_be_positive():
  with pytest.raises(gp.InputError, match="policy heads is 0"):
    PolicyConfig(heads=0)
