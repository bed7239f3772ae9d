"""Tests of several masks aligned to one shape: each network computes what it computes alone."""

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.channels import align, compact_variables
from tests.channels.laws import assert_same
from tests.channels.random_networks import draw_case
from tests.channels.test_equivalence import network
from tests.channels.test_random_networks import evaluate, random_mask, trained


def masks_of(graph, num, rng):
  return np.stack([random_mask(graph, rng) for _ in range(num)])


def test_filler_by_hand():
  # There are four hidden channels. The masks keep two, three and one of them, so the common width
  # is three. The first channels that a mask removes serve as its filler.
  fn = lambda v, x: jax.nn.relu(x @ v["in"]) @ v["out"]
  variables = {"in": np.eye(2, 4) + 1.0, "out": np.ones((4, 3))}
  x = np.ones((5, 2))
  graph = gp.trace(fn, variables, x)
  masks = np.array([[1, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]], bool)
  aligned = align(graph, fn, masks, variables, x)
  np.testing.assert_array_equal(aligned.keep, [[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]])
  cut = aligned.cut(variables)
  np.testing.assert_array_equal(cut["in"][1], [[1, 1, 1], [2, 1, 1]])
  # Before masking, x W = (3, 3, 2, 2). Each output is the sum over the channels that are kept.
  for index, total in enumerate((5, 7, 2)):
    own = jax.tree.map(lambda leaf, i=index: leaf[i], cut)
    np.testing.assert_array_equal(aligned.apply(index, own, x), np.full((5, 3), total))


def test_widths_can_be_larger():
  fn = lambda v, x: jax.nn.relu(x @ v["in"]) @ v["out"]
  variables = {"in": np.eye(2, 4) + 1.0, "out": np.ones((4, 3))}
  graph = gp.trace(fn, variables, np.ones((5, 2)))
  masks = np.array([[1, 0, 0, 1], [0, 0, 0, 1]], bool)
  for width, kept in ((3, [[1, 1, 0, 1], [1, 1, 0, 1]]), (8, np.ones((2, 4)))):
    aligned = align(
      graph, fn, masks, variables, np.ones((5, 2)), width=lambda widest, w=width: w * (widest == 2)
    )
    np.testing.assert_array_equal(aligned.keep, kept)


def test_uncut_undoes_cut(example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  masks = masks_of(graph, 3, np.random.default_rng(0))
  aligned = align(graph, example.eval_fn, masks, example.variables, example.x)
  stacked = aligned.cut(example.variables)
  back = aligned.uncut(stacked, example.variables)
  for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(example.variables), strict=True):
    np.testing.assert_array_equal(one, np.stack([other] * 3))
  # `uncut` takes exactly those channels from its second argument that a network does not hold.
  zeros = jax.tree.map(np.zeros_like, example.variables)
  holed = aligned.uncut(stacked, zeros)
  for index, keep in enumerate(aligned.keep):
    own = jax.tree.map(lambda leaf, i=index: leaf[i], holed)
    held = compact_variables(graph, own, keep)
    jax.tree.map(lambda a, b, i=index: np.testing.assert_array_equal(a, b[i]), held, stacked)
    nonzero = lambda tree: sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(tree))
    assert nonzero(own) == nonzero(held)


@pytest.mark.parametrize("name", ["vgg", "mobile", "dense", "normed"])
def test_aligned_equals_masked(name):
  check_side_by_side(*network(name))


def test_aligned_resnets_equal_masked(example):
  check_side_by_side(example.eval_fn, example.train_fn, example.variables, example.x)


def check_side_by_side(eval_fn, train_fn, variables, x):
  """Checks logits, statistics and gradients of three networks under vmap against masked ones.

  Args:
    eval_fn: the function that is traced, of (variables, x).
    train_fn: (variables, x) -> (logits, updated statistics).
    variables: the dense variables.
    x: a batch of inputs, `[B, H, W, C]`.
  """
  # In float64, rounding errors are far below the tolerance.
  with jax.enable_x64(True):
    variables, x = jax.tree.map(np.float64, (variables, x))
    graph = gp.trace(eval_fn, variables, x)
    masks = masks_of(graph, 3, np.random.default_rng(1))
    aligned = align(graph, train_fn, masks, variables, x)
    masked = gp.masked(graph, train_fn)

    def results(fn, variables):
      def loss(variables):
        logits, updated = fn(variables, x)
        return (logits**2).sum(), {"logits": logits, **updated}

      return jax.grad(loss, has_aux=True)(variables)

    one = lambda index, own: results(lambda v, x: aligned.apply(index, v, x), own)
    side_by_side = jax.jit(jax.vmap(one))(np.arange(3), aligned.cut(variables))
    alone = jax.jit(lambda mask: results(lambda v, x: masked(v, mask, x), variables))
    for index, (mask, keep) in enumerate(zip(masks, aligned.keep, strict=True)):
      gradient, outputs = alone(mask)
      statistics = {name: tree for name, tree in outputs.items() if name != "logits"}
      cut = compact_variables(graph, {**variables, **statistics}, keep)
      outputs |= {name: cut[name] for name in statistics}
      own_gradient, own_outputs = jax.tree.map(lambda leaf, i=index: leaf[i], side_by_side)
      jax.tree.map(assert_same, own_outputs, outputs)
      # The gradients are compared as one vector, because biases before batch norm have a gradient
      # of zero, for which there is no relative tolerance.
      assert_same(*map(flat, (own_gradient, compact_variables(graph, gradient, keep))))


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_padded_shortcuts_stay_pads():
  # The channels that a pad adds before and after the shortcut are two kinds of channels. All
  # networks hold equally many of each kind, so they pad alike and never index activations.
  module = models.model("resnet20", 10)
  x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.tree.map(
    lambda s: np.zeros(s.shape, s.dtype), jax.eval_shape(module.init, jax.random.key(0), x)
  )
  fn = models.eval_function(module)
  graph = gp.trace(fn, variables, x)
  aligned = align(graph, fn, masks_of(graph, 4, np.random.default_rng(0)), variables, x)
  side_by_side = jax.vmap(aligned.apply, (0, 0, None))
  program = jax.make_jaxpr(side_by_side)(np.arange(4), aligned.cut(variables), x)
  pads = [eqn for eqn in equations(program.jaxpr) if eqn.primitive.name == "pad"]
  assert len([eqn for eqn in pads if eqn.invars[0].aval.ndim == 5]) == 2
  gathers = [eqn for eqn in equations(program.jaxpr) if eqn.primitive.name == "gather"]
  # The gathers select rows of the masks, which have two axes, and no activations.
  assert max(eqn.invars[0].aval.ndim for eqn in gathers) == 2


def equations(jaxpr):
  for eqn in jaxpr.eqns:
    yield eqn
    for body in jex_core.jaxprs_in_params(eqn.params):
      yield from equations(getattr(body, "jaxpr", body))


@pytest.mark.parametrize(
  "seed",
  [
    *range(3),
    *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 6)),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 12)),
  ],
)
def test_random_networks_train_side_by_side(seed):
  case = draw_case(seed)
  with jax.enable_x64(True):
    graph = gp.trace(case.eval_fn, case.variables, case.x)
    masks = masks_of(graph, 3, np.random.default_rng(seed))
    aligned = align(graph, case.train_fn, masks, case.variables, case.x)

    def both(variables, stacked, x, labels):
      train = lambda index, own: trained(lambda v, x: aligned.apply(index, v, x), own, x, labels)
      alone = [
        trained(lambda v, x, m=mask: gp.masked(graph, case.train_fn)(v, m, x), variables, x, labels)
        for mask in masks
      ]
      return jax.vmap(train)(jnp.arange(3), stacked), alone

    args = case.variables, aligned.cut(case.variables), case.x, case.labels
    stacked, alone = evaluate(both, *args)
    together = aligned.uncut(stacked, case.variables)
    for index, mask in enumerate(masks):
      own = jax.tree.map(lambda leaf, i=index: leaf[i], together)
      jax.tree.map(
        assert_same,
        compact_variables(graph, own, mask),
        compact_variables(graph, alone[index], mask),
      )
