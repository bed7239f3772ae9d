"""Tests of fine-tuning: side by side equals in turn, and batch norm has statistics of its own."""

import dataclasses

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import compact_variables, make_constraints
from gatprune_jax.data import load_dataset
from gatprune_jax.models import cifar_resnet
from gatprune_jax.networks import from_linen
from gatprune_jax.pruning import finetune
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.search import make_problem
from gatprune_jax.training import Recipe
from tests.channels.laws import assert_same, random_mask
from tests.conftest import TwoLayers


@pytest.mark.long
def test_both_ways_of_fine_tuning_train_the_same_networks(tmp_path):
  data, module = load_dataset(), cifar_resnet(8, 10, (4, 6, 8), "B")
  variables = jax.jit(module.init)(jax.random.key(0), data.train.x[:1])
  network = from_linen(module, variables)
  graph = gp.trace(network.eval_fn, variables, data.train.x[:1])
  problem = make_problem(network, make_constraints(graph, {"macs": 0.25}), data, criteria=("l1",))
  rng = np.random.default_rng(0)
  masks = np.stack([random_mask(graph, rng) for _ in range(2)])
  recipe = Recipe(epochs=1, warmup_epochs=0.0, learning_rate=0.01, shift=1)

  def compensated(mask):
    own = gp.compensate(graph, network.eval_fn, variables, mask, data.train.x[:256])
    return compact_variables(graph, own, mask)

  def finetuned(side_by_side):
    run = Run("", {"side by side": side_by_side}, lambda step: False)
    logger = RunLogger(run, CheckpointConfig(), str(tmp_path / str(side_by_side)))
    return finetune(problem, masks, recipe, side_by_side=side_by_side, logger=logger)

  together, in_turn = finetuned(True), finetuned(False)
  for index, mask in enumerate(masks):
    start = jax.tree.leaves(compensated(mask))
    here, there = (jax.tree.leaves(way.network(index).variables) for way in (together, in_turn))
    for a, b in zip(here, there, strict=True):
      assert_same(a, b, 1e-3)
    moved = [np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(here, start, strict=True)]
    assert np.mean(moved) > 0.9  # a channel that is never positive does not learn
  # Training begins at the compensated weights: tiny steps lead hardly anywhere.
  barely = dataclasses.replace(recipe, learning_rate=1e-9)
  for side_by_side in (True, False):
    small = finetune(problem, masks, barely, side_by_side=side_by_side).network(1)
    pairs = (network.split(tree)[0] for tree in (small.variables, compensated(masks[1])))
    for a, b in zip(*pairs, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  select = data.select
  assert np.abs(together.scores(select) - in_turn.scores(select)).max() <= 1 / select.num


def test_fine_tuned_networks_do_not_depend_on_the_momentum_of_their_batch_norm():
  # In training a batch is normalised by its own statistics, so that the momentum changes nothing
  # but the running statistics, which are measured again at the end.
  data = load_dataset()
  recipe = Recipe(epochs=1, warmup_epochs=0.0, learning_rate=0.01, batch_size=32)
  trained = {}
  for momentum in (0.5, 0.99):
    module = TwoLayers(data.num_classes, momentum)
    variables = jax.jit(module.init)(jax.random.key(0), data.train.x[:1])
    network = from_linen(module, variables)
    graph = gp.trace(network.eval_fn, variables, data.train.x[:1])
    problem = make_problem(network, make_constraints(graph, {"macs": 0.5}), data, criteria=("l1",))
    mask = np.arange(graph.num_channels) % 3 > 0
    for side_by_side in (True, False):
      tuned = finetune(problem, mask[None], recipe, side_by_side=side_by_side)
      trained[momentum, side_by_side] = tuned.network(0)
  first = trained[0.5, True]
  for network in trained.values():
    for a, b in zip(*(jax.tree.leaves(n.variables) for n in (first, network)), strict=True):
      assert_same(a, b, 1e-3)
  # The oracle: means over batches of the first layer's outputs. The first images fill up the last
  # batch: there are 697 of them, and 22 batches.
  images = data.train.x[np.arange(22 * 32) % data.train.num]
  inputs = images.reshape(22, 32, *images.shape[1:])
  kernel = first.variables["params"]["Conv_0"]["kernel"]
  dimensions = ("NHWC", "HWIO", "NHWC")
  convolved = np.array([
    jax.lax.conv_general_dilated(block, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
    for block in inputs
  ])  # fmt: skip
  statistics = first.variables["batch_stats"]["BatchNorm_0"]
  assert_same(statistics["mean"], convolved.mean((1, 2, 3)).mean(0), 1e-5)
  assert_same(statistics["var"], convolved.var((1, 2, 3)).mean(0), 1e-5)
