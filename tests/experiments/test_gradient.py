"""Tests of `experiments.gradient`, on few masks of a small network."""

import numpy as np
import pytest

from experiments import gradient
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run
from gatprune_jax.runtime.preemption import Preempted


@pytest.mark.long
def test_cosines_are_of_every_estimator_and_batch(tmp_path, monkeypatch, capsys):
  for name, value in (("_FRESH", 96), ("_EARLIER", (48, 64)), ("_BATCHES", 3)):
    monkeypatch.setattr(gradient, name, value)
  # The 96 + 64 + 3 * 7 masks are scored 7 at a time, so the last part has fewer.
  config = digits_resnet8.get_config()
  config.model.widths = (4, 6, 8)
  config.dense.recipe.update({"epochs": 1, "warmup_epochs": 0.0})
  config.search.update({"samples": 7, "calibration_images": 64})
  config.search.adaptation.update({"steps": 1, "batch_size": 16})
  config.criteria = ("l1",)
  settings, workdir = make_settings(config), str(tmp_path / "run")
  gradient.main(settings, Run(workdir, config.to_dict(), lambda step: False))
  printed = capsys.readouterr().out

  # Stopped between two batches of masks, and gone on with, it ends with the same numbers.
  other, scored = str(tmp_path / "other"), []
  score = gradient.Scorer.on_reward
  counted = lambda *arguments: scored.append(None) or score(*arguments)
  monkeypatch.setattr(gradient.Scorer, "on_reward", counted)
  with pytest.raises(Preempted, match="stopped after step 4, which is saved in"):
    gradient.main(settings, Run(other, config.to_dict(), lambda step: len(scored) == 5))
  gradient.main(settings, Run(other, config.to_dict(), lambda step: False))
  assert capsys.readouterr().out == printed
  # The classical masks are scored by both processes, and the 26 batches by one of them.
  assert len(scored) == 2 + 26
  cosines = runs.read_result(workdir, "gradient")["cosines"]
  assert list(cosines) == ["no critic"] + [
    f"critic on {masks} masks, residual weight {weight}"
    for masks in (48, 64) for weight in ("1", "0.5", "0")
  ]  # fmt: skip
  for name, values in cosines.items():
    assert len(values) == 3
    assert -1 <= min(values) <= max(values) <= 1
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in printed
    assert name in printed
  gradient.main(settings, Run(workdir, config.to_dict(), lambda step: False))
  assert capsys.readouterr().out == printed


def test_budgets_without_macs_are_refused(tmp_path):
  config = digits_resnet8.get_config()
  del config.budgets.macs
  run = Run(str(tmp_path / "run"), config.to_dict(), lambda step: False)
  with pytest.raises(gp.InputError, match="budgets has no macs"):
    gradient.main(make_settings(config), run)
  assert not (tmp_path / "run").exists()
