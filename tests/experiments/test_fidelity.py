"""Tests of the agreement of scores with outcomes, and of the main program in this process."""

import json
import os

import numpy as np
import pytest

from experiments import fidelity
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs.logger import Run

FINALS = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.1, 0.3, 0.4, 0.5, 0.6]])


def test_agreement_by_hand():
  # The order of the first training has 15 pairs, all concordant; the second has one discordant.
  assert fidelity.agreement([1, 2, 3, 4, 5, 6], FINALS) == pytest.approx((1 + 13 / 15) / 2)
  assert fidelity.agreement([6, 5, 4, 3, 2, 1], FINALS) == pytest.approx(-(1 + 13 / 15) / 2)


def test_regret_by_hand():
  # Outcomes are 0.15, 0.15, 0.3, 0.4, 0.5 and 0.6. The best five are 0.15 and the last four.
  assert fidelity.regret([1, 2, 3, 4, 5, 6], FINALS) == pytest.approx(0)
  # The score leaves out the last one, and takes the other 0.15 instead.
  assert fidelity.regret([5, 4, 3, 2, 1, 0], FINALS) == pytest.approx((0.6 - 0.15) / 5)


def test_parts_have_similar_widths(example_b, monkeypatch):
  monkeypatch.setattr(fidelity, "_TOGETHER", 2)
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  narrow, first, last = (np.zeros(graph.num_channels, bool) for _ in range(3))
  for group in graph.groups:
    narrow[group.channels[:1]] = True
    first[group.channels[:3]] = last[group.channels[-3:]] = True
  masks = np.stack([first, narrow, narrow, last])
  assert sorted(map(list, fidelity.alike(graph, masks))) == [[0, 3], [1, 2]]


@pytest.mark.long
def test_cells_are_measured_once_and_shown(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(fidelity, "_TOGETHER", 5)  # two parts, each of which is compiled for itself
  config = digits_resnet8.get_config("runlocal")
  config.model.widths = (4, 6, 8)
  config.fidelity.update({"seeds": (0,), "budgets": (0.5,), "masks": 10, "steps": (0, 2)})
  config.search.adaptation.batch_size = 16
  run = Run(str(tmp_path), config.to_dict(), lambda step: False)
  fidelity.main(make_settings(config), run)
  table = capsys.readouterr().out
  for level in ("as it is", "as it is, 2 steps", "compensated", "compensated, 2 steps"):
    assert any(line.split("|")[2].strip() == level for line in table.splitlines()[2:])
  # Of the masks' trainings, whose outcomes are kept, no checkpoints are left.
  assert set(os.listdir(tmp_path / "seed0" / "checkpoints")) == {"dense", "training"}
  place = tmp_path / "cells" / "seed0-macs0.5"
  (tmp_path / "result.json").unlink()
  (place / "training 1.json").unlink()
  changed = json.loads((place / "compensated.json").read_text())
  changed["seconds"] = 1234.0
  (place / "compensated.json").write_text(json.dumps(changed))
  fidelity.main(make_settings(config), run)
  again = capsys.readouterr().out
  assert "1234.00" in again  # what is there is not measured again, what is missing is
  tau = lambda text: [line.split("|")[3] for line in text.splitlines()[2:]]
  assert tau(again) == tau(table)
