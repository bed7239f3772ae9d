"""Fine-tuning all networks in one step, and compact ones one after the other."""

import dataclasses

import jax
import numpy as np

from experiments.configs import digits_resnet8
from experiments.journal import Journal, Run
from experiments.judging import Judge
from experiments.settings import make_settings
from experiments.task import prepare
from gatprune_jax.channels import compact_variables
from tests.channels.laws import assert_same, random_mask


def test_both_ways_of_fine_tuning_train_the_same_networks(tmp_path):
  config = digits_resnet8.get_config()
  config.model.widths = (4, 6, 8)
  config.finetune.update({"epochs": 1, "warmup_epochs": 0.0, "learning_rate": 0.01})
  settings = make_settings(config)
  prepared = prepare(settings, settings.budgets)
  network, graph = prepared.network, prepared.constraints.graph
  variables = jax.jit(network.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  masks = np.stack([random_mask(graph, rng) for _ in range(2)])

  def finetuned(side_by_side):
    changed = dataclasses.replace(settings, finetune_side_by_side=side_by_side)
    judge = Judge(changed, network, graph, variables, prepared.data.train, masks)
    run = Run("", {"side by side": side_by_side}, lambda step: False)
    return judge.finetune(Journal(run, settings.checkpoints, str(tmp_path / str(side_by_side))))

  together, in_turn = finetuned(True), finetuned(False)
  for index, mask in enumerate(masks):
    start = jax.tree.leaves(compact_variables(graph, variables, mask))
    here, there = (jax.tree.leaves(way.compact(index).variables) for way in (together, in_turn))
    for a, b in zip(here, there, strict=True):
      assert_same(a, b, 1e-3)
    moved = [np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(here, start, strict=True)]
    assert np.mean(moved) > 0.9  # a channel that is never positive does not learn
  select = prepared.data.select
  assert np.abs(together.accuracies(select) - in_turn.accuracies(select)).max() <= 1 / len(select.y)
