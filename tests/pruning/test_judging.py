"""Tests of the heat before the fine-tuning, and of what the fine-tuning of a method costs."""

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import make_constraints
from gatprune_jax.data import load_dataset
from gatprune_jax.pruning import Proposal
from gatprune_jax.pruning.judging import hold_heat, judge, shortened
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.search import SearchConfig, make_problem
from gatprune_jax.training import Recipe
from tests.experiments import tiny


def proposal(name, *numbers):
  """Returns a proposal of masks of eight channels, which are the binary digits of the numbers."""
  bits = [[bool(number >> i & 1) for i in range(8)] for number in numbers]
  return Proposal(name, np.array(bits), 0, 0.0)


def numbers_of(masks):
  return (masks @ (1 << np.arange(8))).tolist()


def test_the_best_masks_of_every_method_go_on():
  single, agent, other = (
    proposal("single", 9), proposal("agent", 3, 7, 5), proposal("other", 1, 6, 2, 8),
  )  # fmt: skip
  seen = []

  def heat(masks):
    seen.append(numbers_of(masks))
    return masks @ (1 << np.arange(8))  # the larger number is better

  left = hold_heat([single, agent, other], 2, heat)
  assert seen == [[3, 7, 5, 1, 6, 2, 8]]  # all contested masks at once, and no others
  assert left[0] is single
  assert [method.method for method in left] == ["single", "agent", "other"]
  assert [numbers_of(method.masks) for method in left[1:]] == [[7, 5], [8, 6]]


def test_no_heat_is_held_where_no_method_has_masks_to_spare():
  proposals = [proposal("single", 9), proposal("agent", 3, 7)]
  assert hold_heat(proposals, 2, None) == proposals


@pytest.mark.parametrize(("epochs", "short"), [(1, 1), (2, 1), (8, 2), (30, 7)])
def test_a_heat_lasts_a_quarter_of_the_epochs(epochs, short):
  recipe = shortened(Recipe(epochs=epochs, warmup_epochs=0.5))
  assert recipe.epochs == short
  assert recipe.warmup_epochs == pytest.approx(0.5 * short / epochs)


def test_the_checkpoints_of_a_heat_go_with_those_of_the_fine_tuning(tmp_path):
  data = load_dataset()
  network = tiny.make(data.num_classes, data.train.x.shape[1:])
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  problem = make_problem(network, make_constraints(graph, {"macs": 0.9}), data, criteria=("l1",))
  masks = np.ones((3, graph.num_channels), bool)
  masks[np.arange(3), np.arange(3)] = False
  logger = RunLogger(Run("", {}, lambda step: False), CheckpointConfig(), str(tmp_path))
  recipe = Recipe(epochs=2, batch_size=256, warmup_epochs=0.0, distillation=0.0)
  proposals = [Proposal("agent", masks, 0, 0.0)]
  judgement = judge(
    problem, data, proposals, SearchConfig(finalists=1), recipe, seed=0, logger=logger
  )
  assert len(judgement.masks) == 1
  assert judgement.choices[0].epochs == 3 * 1 + 1 * 2
  (saved,) = (tmp_path / "checkpoints").iterdir()
  assert (saved / "heat").exists()
  logger.forget("finetune")
  assert not saved.exists()
