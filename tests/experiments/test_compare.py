"""Tests of `experiments.compare` in this process, with stubs in place of the searches."""

import json

import numpy as np
import pytest

from experiments import compare
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runtime.preemption import Preempted
from gatprune_jax.search import SearchResult

BUDGET = 0.5


@pytest.fixture
def methods(monkeypatch):
  """Replaces agent and searches by stubs, and returns the list of calls (name, evaluations).

  The agent scores 11 masks, and a search scores as many masks as it may.
  """
  calls = []

  def result(name, problem, evaluations):
    calls.append((name, evaluations))
    return SearchResult(problem.pruners[-1].mask[None], np.zeros(1), evaluations, 0.0, None)

  agent = lambda problem, *_: result("agent", problem, 11)
  one_search = lambda name: lambda problem, config, num, seed: result(name, problem, num)
  monkeypatch.setattr(compare, "search", agent)
  monkeypatch.setattr(compare, "SEARCHES", {name: one_search(name) for name in compare.SEARCHES})
  return calls


def small_config():
  config = digits_resnet8.get_config("runlocal")
  config.model.widths = (4, 6, 8)
  config.compare.update({"seeds": (0,), "budgets": (BUDGET,), "finetune": False})
  config.compare.searches = ("random_ratios", "evolve_bits")
  return config


def run_in(workdir, config, should_stop=lambda step: False):
  compare.main(make_settings(config), Run(str(workdir), config.to_dict(), should_stop))


def test_a_stop_between_methods_is_honoured_and_none_is_run_twice(
  methods, tmp_path, monkeypatch, capsys
):
  forget, config = RunLogger.forget, small_config()

  def forget_after_the_row(logger, phase):
    assert next((tmp_path / "run" / "rows").glob("*.json")).exists()
    forget(logger, phase)

  run_in(tmp_path / "whole", config)
  every = [("agent", 11), ("random_ratios", 11), ("evolve_bits", 11)]
  assert methods == every
  monkeypatch.setattr(RunLogger, "forget", forget_after_the_row)
  for done, stopped in enumerate(("agent", "random_ratios", "evolve_bits"), start=1):
    with pytest.raises(Preempted, match=f"stopped after {stopped}, whose masks are saved in"):
      run_in(tmp_path / "run", config, lambda step, done=done: len(methods) == 3 + done)
    assert methods[3:] == every[:done]
  run_in(tmp_path / "run", config)
  assert methods[3:] == every
  rows = [json.loads((tmp_path / name / "compare.json").read_text()) for name in ("whole", "run")]
  assert rows[0] == rows[1]
  monkeypatch.setattr(compare, "set_up", None)  # a finished comparison must not prepare data
  capsys.readouterr()
  run_in(tmp_path / "run", config)
  assert "| evolve_bits " in capsys.readouterr().out


def test_a_search_without_its_criterion_is_refused_before_anything_is_written(tmp_path):
  config = small_config()
  config.criteria, config.compare.searches = ("l2",), ("ratio_agent",)
  with pytest.raises(gp.InputError, match="have ratio_agent, which needs l1, and criteria are l2"):
    run_in(tmp_path / "run", config)
  assert not (tmp_path / "run").exists()
