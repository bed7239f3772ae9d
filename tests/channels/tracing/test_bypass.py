"""Tests of groups that may be removed whole because another path carries the signal."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import compact_function, keep_floors
from tests.channels.laws import assert_costs, assert_law, assert_same, random_mask
from tests.conftest import Example, TwoLayers, perturbed, small_resnet


def bypassed(graph):
  return [group.name.removeprefix("params/") for group in graph.groups if group.has_bypass]


def test_residual_branches_have_a_bypass_and_streams_have_none(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  assert bypassed(graph) == [f"stage{k}_0/conv1/kernel" for k in (1, 2, 3)]


def test_with_padded_shortcuts_the_first_stream_carries_the_others():
  e = Example(small_resnet("A"))
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  # The channels that stages 2 and 3 add beside the stem's channels hold nothing but the outputs of
  # their blocks, so these channels may be removed whole.
  assert bypassed(graph) == [
    f"stage{k}/kernel" for k in ("1_0/conv1", "2_0/conv1", "2_0/conv2", "3_0/conv1", "3_0/conv2")
  ]


def test_a_chain_has_no_bypass():
  e = Example(TwoLayers())
  assert bypassed(gp.trace(e.eval_fn, e.variables, e.x)) == []


class Branches(nn.Module):
  """A network of two parallel branches, a layer that joins them, and squeeze-and-excitation.

  The squeeze layer may lose all channels, because the gate is then a constant other than zero.
  """

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
    branches = [nn.relu(nn.Conv(3, (k, k), name=f"branch{k}")(x)) for k in (1, 3)]
    y = nn.Conv(5, (1, 1), name="join")(jnp.concatenate(branches, -1))
    squeezed = nn.relu(nn.Dense(2, name="squeeze")(y.mean((1, 2), keepdims=True)))
    y = y * nn.sigmoid(nn.Dense(5, name="excite")(squeezed))
    return nn.Dense(3, name="head")(y.mean((1, 2)))


def test_parallel_branches_carry_for_each_other_but_not_all_at_once():
  module = Branches()
  x = np.random.default_rng(0).standard_normal((2, 6, 6, 2)).astype(np.float32)
  variables = perturbed(jax.jit(module.init)(jax.random.key(0), x))
  fn = lambda v, x: module.apply(v, x)
  graph = gp.trace(fn, variables, x)
  assert bypassed(graph) == ["branch1/kernel", "squeeze/kernel"]
  mask = np.ones(graph.num_channels, bool)
  for group in graph.groups:
    if group.has_bypass:
      mask[group.channels] = False
  small = assert_law(graph, fn, variables, mask, x, allow_empty=True)
  assert_costs(graph, small, mask, x)


@pytest.mark.parametrize(
  ("gate", "bypass"),
  [
    (lambda y: y, []),  # the emptied factor is zero, and so is the product
    (nn.relu, []),
    (nn.silu, []),
    (lambda y: y - y * y, []),
    (nn.sigmoid, ["a"]),  # sigmoid(0) = 1/2
    (jnp.exp, ["a"]),
    (lambda y: nn.relu(y + 1), ["a"]),
  ],
)
def test_a_product_carries_where_an_emptied_factor_is_not_zero(gate, bypass):
  def fn(v, x):
    return ((x @ v["p"]) * gate(nn.relu(x @ v["a"]) @ v["b"])) @ v["o"]

  rng = np.random.default_rng(0)
  shapes = {"p": (3, 6), "a": (3, 4), "b": (4, 6), "o": (6, 2)}
  variables = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
  x = rng.standard_normal((5, 3)).astype(np.float32)
  graph = gp.trace(fn, variables, x)
  assert bypassed(graph) == bypass
  # With the kernel of the emptied layer at zero, the outputs of different examples differ exactly
  # where the other factor still carries the signal.
  out = fn({**variables, "a": np.zeros((3, 4), np.float32)}, x)
  assert (np.ptp(out, axis=0) > 0).all() == bool(bypass)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_whole_branches_can_be_removed(shortcut, tmp_path):
  e = Example(small_resnet(shortcut))
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  candidates = [group for group in graph.groups if group.has_bypass]
  masked = {fn: jax.jit(gp.masked(graph, fn)) for fn in (e.eval_fn, e.train_fn)}

  def check(fn, mask):
    return assert_law(graph, fn, e.variables, mask, e.x, allow_empty=True, masked=masked[fn])

  rng = np.random.default_rng(1)
  for emptied in (candidates[:1], candidates[1:], candidates):
    mask = random_mask(graph, rng)
    for group in emptied:
      mask[group.channels] = False
    small = check(e.eval_fn, mask)
    check(e.train_fn, mask)
    assert_costs(graph, small, mask, e.x)
  gp.save(tmp_path / "net", small, e.x)
  loaded = gp.load(tmp_path / "net")
  assert_same(loaded.apply(loaded.variables, e.x), small.apply(small.variables, e.x))
  # The gradients of the network with emptied groups are finite, so it can be trained.
  train = compact_function(graph, e.train_fn, mask, allow_empty=True)
  gradients = jax.jit(jax.grad(lambda v: (train(v, e.x)[0] ** 2).mean()))(small.variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_emptying_is_opt_in_and_only_where_the_signal_survives(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = np.ones(graph.num_channels, bool)
  mask[graph.groups[1].channels] = False
  with pytest.raises(gp.InputError, match=r"removes all 4 channels .* or pass allow_empty=True"):
    gp.compact(graph, e.eval_fn, e.variables, mask)
  mask[graph.groups[0].channels] = False
  with pytest.raises(gp.InputError, match=r"all 4 channels of params/stem/kernel: keep at least"):
    gp.compact(graph, e.eval_fn, e.variables, mask, allow_empty=True)


def test_floors_are_zero_only_where_there_is_a_bypass(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  assert keep_floors(graph, 0.25, allow_empty=True).tolist() == [1, 0, 0, 2, 0, 2]


def test_after_an_embedding_the_signal_is_alive():
  # The signal enters by the index of a row, and the row itself is weights.
  def fn(v, tokens):
    rows = v["table"][tokens]
    branches = [nn.relu(rows @ v[name]).max(1) for name in ("a", "b")]
    return jnp.concatenate(branches, -1) @ v["head"]

  rng = np.random.default_rng(0)
  shapes = {"table": (7, 4), "a": (4, 3), "b": (4, 5), "head": (8, 2)}
  variables = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
  graph = gp.trace(fn, variables, rng.integers(0, 7, (3, 5)))
  assert bypassed(graph) == ["a"]


class Tokens(nn.Module):
  """Patches and a class token, which meet in attention and nowhere else."""

  reads: str

  @nn.compact
  def __call__(self, x):
    stream = nn.Dense(6, name="embed")(x)
    token = self.param("token", nn.initializers.normal(1.0), (6,))
    token = jnp.zeros((len(x), 1, 1)) + token[None, None]
    stream = jnp.concatenate([token, stream], axis=1)
    q, k, v = (nn.Dense(size, name=name)(stream) for size, name in ((3, "q"), (3, "k"), (5, "v")))
    stream = stream + nn.Dense(6, name="out")(nn.softmax(q @ k.swapaxes(1, 2)) @ v)
    stream = stream + nn.Dense(6, name="down")(nn.relu(nn.Dense(4, name="up")(stream)))
    stream = stream[:, 0] if self.reads == "class token" else stream.mean(1)
    return nn.Dense(2, name="head")(stream)


@pytest.mark.parametrize(
  ("reads", "bypass"),
  [
    # The class token must see the patches by `v`; what it sees of them may all weigh the same.
    ("class token", ["q/kernel", "up/kernel"]),
    ("mean", ["q/kernel", "v/kernel", "up/kernel"]),
  ],
)
def test_a_class_token_sees_the_patches_by_attention_alone(reads, bypass):
  module, x = Tokens(reads), np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
  variables = perturbed(jax.jit(module.init)(jax.random.key(0), x))
  graph = gp.trace(module.apply, variables, x)
  assert bypassed(graph) == bypass
  mask = np.ones(graph.num_channels, bool)
  for group in graph.groups:
    if group.has_bypass:
      mask[group.channels] = False
  small = assert_law(graph, module.apply, variables, mask, x, allow_empty=True)
  out = small.apply(small.variables, x)
  assert (np.ptp(out, axis=0) > 1e-3).all()
