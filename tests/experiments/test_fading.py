"""Tests of channels that fade while a network trains."""

import json

import jax
import numpy as np
import pytest

from experiments import fading
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.networks import masked_network
from gatprune_jax.runs.logger import Run
from tests.channels.laws import assert_same, random_mask


def test_removed_channels_fade_and_vanish(two_layers):
  e = two_layers
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = random_mask(graph, np.random.default_rng(0))
  faded = fading.fading_network(graph, e.network, mask, 2)
  under_mask = masked_network(graph, e.network, mask)
  variables, outputs, factors = faded.variables, [], []
  for _ in range(3):
    factors.append(float(variables["factor"]))
    out, state = faded.forward_train(variables, e.x)
    variables = faded.merge(faded.split(variables)[0], state)
    outputs.append(out)
  assert factors == [1.0, 0.5, 0.0]
  assert_same(outputs[0], e.train_fn(e.variables, e.x)[0])  # nothing has faded yet
  assert_same(outputs[2], under_mask.train_fn(e.variables, e.x)[0])  # nothing is left
  half = gp.masked(graph, e.train_fn)(e.variables, np.where(mask, 1.0, 0.5), e.x)[0]
  assert_same(outputs[1], half)
  # In eval mode removed channels are gone at once, and the weights are those that train.
  assert_same(faded.eval_fn(variables, e.x), under_mask.eval_fn(variables["network"], e.x))
  trained = jax.tree.leaves(faded.split(variables)[0])
  assert len(trained) == sum(e.network.trains)


def test_gains_by_hand():
  cells = [
    {"budget": 0.5, "accuracies": {key: [0.5, 0.7] for key in fading.STARTS}},
    {"budget": 0.5, "accuracies": {key: [0.6, 0.6] for key in fading.STARTS}},
  ]
  cells[0]["accuracies"] = {**cells[0]["accuracies"], "compensated, fading": [0.51, 0.73]}
  lines = fading.fading_table(cells).splitlines()[2:]
  row = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
  # The gains 1, 3, 0 and 0 have the mean 1 and the standard error sqrt(2) / 2.
  assert row == ["compensated, fading", "0.5", "61.00", "+1.00 ± 0.71", "4"]


@pytest.mark.long
def test_every_start_is_trained_once(tmp_path, capsys):
  config = digits_resnet8.get_config("runlocal")
  config.model.widths = (4, 6, 8)
  config.compare.update({"seeds": (0,), "budgets": (0.5,)})
  run = Run(str(tmp_path), config.to_dict(), lambda step: False)
  fading.main(make_settings(config), run)
  table = capsys.readouterr().out
  place = tmp_path / "cells" / "seed0-macs0.5"
  for name in fading.STARTS:
    values = json.loads((place / f"{name}.json").read_text())
    assert len(values) == 2  # one criterion in two scopes
    assert f"| {name} " in table
  (place / "compensated.json").write_text("[0.25, 0.75]")
  (tmp_path / "result.json").unlink()
  fading.main(make_settings(config), run)
  assert "| 50.00 " in capsys.readouterr().out.replace("   ", "")
