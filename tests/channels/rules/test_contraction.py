"""Tests of dot products over and to several axes: attention heads, tokens, low rank, ensembles."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_costs, assert_law, assert_same, random_mask
from tests.channels.rules.test_rules import X, check, conv, indices, weights
from tests.conftest import perturbed

TOKENS = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)


def widths(graph):
  return [len(group.channels) for group in graph.groups]


class SelfAttention(nn.Module):
  """One block of attention beside a skip."""

  heads: int
  features: int = 12

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(6, name="embed")(x)
    attention = nn.MultiHeadDotProductAttention(
      self.heads, qkv_features=self.features, name="attention"
    )
    x = x + attention(x, x)
    return nn.Dense(2, name="head")(x.mean(1))


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_multi_head_attention_loses_whole_heads_and_the_same_elements_of_the_others(heads):
  net = SelfAttention(heads)
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), TOKENS))
  graph = gp.trace(net.apply, variables, TOKENS)
  masked = jax.jit(gp.masked(graph, net.apply))
  law = lambda mask: assert_law(graph, net.apply, variables, mask, TOKENS, masked=masked)
  rng = np.random.default_rng(2)
  for _ in range(3):
    law(random_mask(graph, rng))
    # Where one head is left, broadcasting it moves nothing, so that other arrays are written over.
    mask = random_mask(graph, rng, least=2)
    assert_costs(graph, law(mask), mask, TOKENS)
  # The stream; what the queries and the keys of each head have in common, the heads, and what the
  # values and the outputs of each head have in common. A single head cannot be removed.
  assert widths(graph) == [6, 12 // heads, *([heads] if heads > 1 else []), 12 // heads]
  on = lambda name, axis: indices(graph, f"params/attention/{name}/kernel", axis)
  assert on("query", 2) == on("key", 2)
  assert on("value", 2) == on("out", 1)
  assert on("query", 1) == on("key", 1) == on("value", 1) == on("out", 0)


def test_without_a_head_the_network_is_the_one_that_is_built_with_fewer_heads():
  variables = perturbed(jax.jit(SelfAttention(4).init)(jax.random.key(0), TOKENS))
  fn = SelfAttention(4).apply
  graph = gp.trace(fn, variables, TOKENS)
  heads = graph.groups[2]
  assert heads.name == "params/attention/query/kernel axis 1"
  mask = ~np.isin(np.arange(graph.num_channels), heads.channels[[0, 2]])
  small = gp.compact(graph, fn, variables, mask)
  built = jax.jit(SelfAttention(2, features=6).apply)(small.variables, TOKENS)
  assert_same(jax.jit(small.apply)(small.variables, TOKENS), built)


class FusedAttention(nn.Module):
  """Attention whose queries, keys and values are one dense layer over three axes."""

  heads: int
  size: int
  before_heads: bool  # whether the axis of queries, keys and values is moved to the front

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(4, name="embed")(x)
    qkv = nn.Dense(3 * self.heads * self.size, name="qkv")(x)
    qkv = qkv.reshape(*x.shape[:2], 3, self.heads, self.size)
    if self.before_heads:
      q, k, v = (part.swapaxes(1, 2) for part in qkv.transpose(2, 0, 3, 1, 4))
    else:
      q, k, v = (qkv[:, :, i] for i in range(3))
    y = nn.dot_product_attention(q, k, v).reshape(*x.shape[:2], -1)
    return nn.Dense(2, name="head")((x + nn.Dense(4, name="out")(y)).mean(1))


@pytest.mark.parametrize("before_heads", [False, True])
def test_queries_and_keys_of_one_dense_layer_are_cut_apart_from_its_values(before_heads):
  net = FusedAttention(2, 3, before_heads)
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), TOKENS))
  graph = check(net.apply, variables, x=TOKENS)
  # Which elements of a head the queries and keys lose is decided apart from those of the values.
  first = np.arange(3).tolist() * 2
  stream, of_scores, of_values = (group.channels for group in graph.groups)
  assert indices(graph, "params/qkv/kernel", 1) == [
    *of_scores[first + first], *of_values[first]
  ]  # fmt: skip
  assert indices(graph, "params/out/kernel", 0) == of_values[first].tolist()
  assert indices(graph, "params/qkv/kernel", 0) == stream.tolist()


def test_heads_have_no_bypass_of_their_own():
  net = SelfAttention(3)
  variables = perturbed(jax.jit(net.init)(jax.random.key(0), TOKENS))
  graph = gp.trace(net.apply, variables, TOKENS)
  # The block is removed with all elements of the values, and not with all heads.
  assert [group.has_bypass for group in graph.groups] == [False, True, False, True]
  for removed in ([1], [3], [1, 3]):
    gone = np.concatenate([graph.groups[index].channels for index in removed])
    mask = ~np.isin(np.arange(graph.num_channels), gone)
    assert_law(graph, net.apply, variables, mask, TOKENS, allow_empty=True)


@pytest.mark.parametrize("kept", [[0, 2], [1]])
def test_whole_experts_of_a_mixture_are_removed(kept):
  def fn(v, x):
    gates = nn.softmax(x @ v["gate"])
    experts = nn.relu(jnp.einsum("nti,eio->nteo", x, v["experts"]))
    return jnp.einsum("nteo,nte->nto", experts, gates).mean(1) @ v["head"]

  variables = weights(gate=(3, 4), experts=(4, 3, 5), head=(5, 2))
  graph = check(fn, variables, x=TOKENS)
  assert [(group.name, len(group.channels)) for group in graph.groups] == [
    ("gate", 4), ("experts", 5)
  ]  # fmt: skip
  # The gates of the others are normalised anew, as in a mixture of as many experts.
  mask = np.ones(9, bool)
  mask[:4] = np.isin(np.arange(4), kept)
  fewer = {"gate": variables["gate"][:, kept], "experts": variables["experts"][kept]}
  expected = fn({**fewer, "head": variables["head"]}, TOKENS)
  assert_same(gp.masked(graph, fn)(variables, mask, TOKENS), expected)


def test_a_layer_over_two_axes_of_channels_loses_elements_of_both():
  def fn(v, x):
    hidden = nn.relu(jnp.einsum("nti,iab->ntab", x, v["in"]))
    return jnp.einsum("ntab,abo->nto", hidden, v["out"]).mean(1)

  graph = check(fn, weights(**{"in": (3, 4, 6), "out": (4, 6, 2)}), x=TOKENS)
  assert [(group.name, len(group.channels)) for group in graph.groups] == [
    ("in", 6), ("in axis 1", 4)
  ]  # fmt: skip
  # Two by three elements are kept: each needs 3 multiply-adds to be computed, and 2 to be read.
  assert gp.macs(graph, np.isin(np.arange(10), [0, 1, 2, 6, 7])) == 5 * 2 * 3 * (3 + 2)
  assert gp.params(graph, np.isin(np.arange(10), [0, 1, 2, 6, 7])) == 2 * 3 * (3 + 2)


def test_a_mixer_loses_hidden_units_of_tokens_and_of_channels():
  def fn(v, x):
    x = x @ v["embed"]
    x += (nn.gelu(x.swapaxes(1, 2) @ v["tokens_in"]) @ v["tokens_out"]).swapaxes(1, 2)
    x += nn.gelu(x @ v["in"]) @ v["out"]
    return x.mean(1) @ v["head"]

  shapes = {
    "embed": (3, 4), "tokens_in": (5, 7), "tokens_out": (7, 5), "in": (4, 6), "out": (6, 4),
    "head": (4, 2),
  }  # fmt: skip
  graph = check(fn, weights(**shapes), x=TOKENS)
  assert [(group.name, len(group.channels)) for group in graph.groups] == [
    ("embed", 4), ("tokens_in", 7), ("in", 6)
  ]  # fmt: skip
  assert "tokens_out" not in {
    name for group in graph.groups for name, axis in group.members if axis
  }


def test_a_gate_of_which_one_half_is_mixed_over_tokens():
  """The spatial gating unit of gMLP (arXiv 2105.08050)."""

  def fn(v, x):
    x = x @ v["embed"]
    gate, mixed = jnp.split(nn.gelu(x @ v["in"]), 2, axis=-1)
    mixed = jnp.einsum("ntc,ts->nsc", mixed, v["space"]) + v["bias"][None, :, None]
    return (x + (gate * mixed) @ v["out"]).mean(1) @ v["head"]

  shapes = {
    "embed": (3, 4), "in": (4, 12), "space": (5, 5), "bias": (5,), "out": (6, 4), "head": (4, 2)
  }  # fmt: skip
  graph = check(fn, weights(**shapes), x=TOKENS)
  # A channel of the gate leaves with the channel of the other half that it is multiplied with.
  assert [(group.name, len(group.channels)) for group in graph.groups] == [("embed", 4), ("in", 6)]
  assert indices(graph, "in", 1) == 2 * list(range(4, 10))


def test_tokens_that_are_mixed_without_hidden_units_stay():
  """The layer across patches of ResMLP (arXiv 2105.03404), between learned scales."""

  def fn(v, x):
    x = nn.relu(x @ v["embed"])
    mixed = jnp.einsum("ntc,ts->nsc", x * v["before"][None, None], v["patches"])
    return (x + mixed * v["after"][None, None]).mean(1) @ v["head"]

  shapes = {"embed": (3, 6), "before": (6,), "patches": (5, 5), "after": (6,), "head": (6, 2)}
  graph = check(fn, weights(**shapes), x=TOKENS)
  (group,) = graph.groups
  assert group.members == (("after", 0), ("before", 0), ("embed", 1), ("head", 0))


def test_a_kernel_with_a_part_of_low_rank():
  def fn(v, x):
    hidden = nn.relu(x @ (v["w"] + v["down"] @ v["up"]))
    return hidden.mean(1) @ v["head"]

  variables = weights(w=(3, 6), down=(3, 2), up=(2, 6), head=(6, 2))
  graph = gp.trace(fn, variables, TOKENS)
  mask = np.array([1, 0, 0, 1, 1, 0], bool)
  assert_law(graph, fn, variables, mask, TOKENS)
  # The kernel of three kept outputs is made once; then five tokens 3 -> 3, and their mean 3 -> 2.
  assert gp.macs(graph, mask) == 3 * 2 * 3 + 5 * 3 * 3 + 3 * 2
  assert indices(graph, "up", 1) == indices(graph, "w", 1) == list(range(6))


def test_a_convolution_with_a_part_of_low_rank():
  def fn(v, x):
    kernel = v["w"] + jnp.einsum("hwir,ro->hwio", v["down"], v["up"])
    return nn.relu(conv(nn.relu(conv(x, v["a"])), kernel)).mean((1, 2)) @ v["head"]

  shapes = {
    "a": (1, 1, 3, 4), "w": (3, 3, 4, 6), "down": (3, 3, 4, 2), "up": (2, 6), "head": (6, 2),
  }  # fmt: skip
  variables = weights(**shapes)
  graph = gp.trace(fn, variables, X)
  mask = np.array([1, 0, 1, 1, 1, 0, 0, 1, 1, 0], bool)
  assert_law(graph, fn, variables, mask, X)
  # The kernel of 2 inputs and 4 outputs is made once; then 36 positions, their mean and the head.
  assert gp.macs(graph, mask) == 9 * 2 * 2 * 4 + 36 * (3 * 2 + 9 * 2 * 4) + 4 * 2
  assert indices(graph, "up", 1) == indices(graph, "w", 3) == list(range(6))
  assert indices(graph, "down", 2) == indices(graph, "w", 2) == list(range(6, 10))


def test_a_kernel_that_is_a_product_of_three_weights():
  # A singular value decomposition whose singular values are learned, as for spectral pruning.
  def fn(v, x):
    hidden = nn.relu(x @ (v["left"] * v["values"][None] @ v["right"]))
    return hidden.mean(1) @ v["head"]

  variables = weights(left=(3, 2), values=(2,), right=(2, 6), head=(6, 2))
  graph = gp.trace(fn, variables, TOKENS)
  mask = random_mask(graph, np.random.default_rng(2))
  assert_law(graph, fn, variables, mask, TOKENS)
  assert [group.members for group in graph.groups] == [(("head", 0), ("right", 1))]


def test_products_of_features_are_cut_on_both_axes():
  # A Gram matrix of two layers' features, whose two axes are read one after the other.
  def fn(v, x):
    a, b = nn.relu(x @ v["a"]), nn.relu(x @ v["b"])
    gram = jnp.einsum("nti,ntj->nij", a, b)
    return jnp.tanh(jnp.einsum("nij,j->ni", gram, v["c"])) @ v["d"]

  graph = check(fn, weights(a=(3, 4), b=(3, 5), c=(5,), d=(4, 2)), x=TOKENS)
  assert widths(graph) == [4, 5]


def test_the_members_of_an_ensemble_lose_the_same_channels():
  def fn(v, x):
    trunk = nn.relu(conv(x, v["a"]))
    member = lambda kernel, head: nn.relu(conv(trunk, kernel)).mean((1, 2)) @ head
    return jax.vmap(member)(v["kernels"], v["heads"]).mean(0)

  graph = check(fn, weights(a=(1, 1, 3, 4), kernels=(3, 1, 1, 4, 6), heads=(3, 6, 2)), x=X)
  assert widths(graph) == [4, 6]
  assert indices(graph, "kernels", 4) == indices(graph, "heads", 1) == list(range(4, 10))


def shuffled(x, groups):
  """Returns the channels of `[n, h, w, c]` dealt out from groups in turn."""
  return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-2, -1).reshape(x.shape)


@pytest.mark.parametrize(
  ("groups", "width", "middle"), [(3, 24, 8), (2, 10, 5), (2, 12, 3), (4, 8, 1)]
)
def test_a_shuffle_between_grouped_convolutions(groups, width, middle):
  """The unit of ShuffleNet (arXiv 1707.01083).

  The second grouped convolution has one kernel axis for the inputs of all groups, so it loses the
  same indices of each. The shuffle puts output p // groups of group p % groups of the first at
  position p. For 3 groups of 8, index k of the second, at the positions k, 8 + k and 16 + k, is one
  output of each group of the first, and nothing else is tied. So it is for 2 groups of 5. For 2
  groups of 6, the positions k and 6 + k are outputs k // 2 and k // 2 + 3 of one group, and are
  tied to those of the other. For 4 groups of 2, everything is tied.
  """

  def fn(v, x):
    x = nn.relu(conv(x, v["a"]))
    y = shuffled(nn.relu(conv(x, v["b"], groups)), groups)
    y = conv(conv(y, v["depthwise"], width), v["c"], groups)
    return nn.relu(x + y).mean((1, 2)) @ v["d"]

  shapes = {
    "a": (1, 1, 3, 12), "b": (1, 1, 12 // groups, width), "depthwise": (3, 3, 1, width),
    "c": (1, 1, width // groups, 12), "d": (12, 2),
  }  # fmt: skip
  graph = check(fn, weights(**shapes), x=X)
  assert widths(graph) == [12 // groups, middle]
