"""Tests of `experiments.compare` in this process, with stubs in place of the searches."""

import json
import shutil

import numpy as np
import pytest

from experiments import compare
from experiments.common import earlier
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runtime.preemption import Preempted
from gatprune_jax.search import SearchResult
from tests.reporting.pages import parsed

BUDGET = 0.5
PASSES = 1440  # ten epochs of 48 images, at three passes for the step of an image
AT_EQUAL_COST = 42  # masks at 16 passes for the statistics and 18 for the reward images


def stub_methods(monkeypatch):
  """Replaces agent and searches by stubs, and returns the list of calls (name, evaluations).

  The agent scores 11 masks, at a cost of PASSES, and a search scores as many masks as it may.
  """
  calls = []

  def result(name, problem, evaluations):
    calls.append((name, evaluations))
    return SearchResult(problem.pruners[-1].mask[None], np.zeros(1), evaluations, 0.0, None, PASSES)

  agent = lambda problem, *_: result("agent", problem, 11)
  one_search = lambda name: lambda problem, scorer, num, seed: result(name, problem, num)
  monkeypatch.setattr(compare, "search", agent)
  monkeypatch.setattr(compare, "SEARCHES", {name: one_search(name) for name in compare.SEARCHES})
  return calls


@pytest.fixture
def methods(monkeypatch):
  return stub_methods(monkeypatch)


def small_config():
  config = digits_resnet8.get_config("runlocal")
  config.model.widths = (4, 6, 8)
  config.search.adaptation.steps = 0
  config.compare.update({"seeds": (0,), "budgets": (BUDGET,), "finetune": False})
  config.compare.searches = ("random_ratios", "evolve_bits")
  return config


def run_in(workdir, config, should_stop=lambda step: False):
  told = json.loads(json.dumps(config.to_dict()))
  compare.main(make_settings(config), Run(str(workdir), told, should_stop))


def config_of(*seeds):
  config = small_config()
  config.criteria, config.compare.seeds = ("l1", "l2"), seeds
  return config


def finetuned_config():
  config = config_of(0)
  config.compare.finetune = True
  return config


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
  """Returns the workdir of a finished comparison; tests must not change it."""
  place = tmp_path_factory.mktemp("compare") / "finetuned"
  with pytest.MonkeyPatch.context() as monkeypatch:
    stub_methods(monkeypatch)
    run_in(place, finetuned_config())
  return place


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  """Returns the workdirs of comparisons of seed 0 and of seed 1, and how many searches they ran.

  Tests must not change the workdirs.
  """
  places = [tmp_path_factory.mktemp("compare") / f"only{seed}" for seed in (0, 1)]
  with pytest.MonkeyPatch.context() as monkeypatch:
    calls = stub_methods(monkeypatch)
    for seed, place in enumerate(places):
      run_in(place, config_of(seed))
  return places, len(calls)


@pytest.mark.long
def test_a_stop_between_methods_is_honoured_and_none_is_run_twice(
  methods, tmp_path, monkeypatch, capsys
):
  forget, config = RunLogger.forget, small_config()

  def forget_after_the_row(logger, phase):
    assert next((tmp_path / "run" / "rows").glob("*.json")).exists()
    forget(logger, phase)

  run_in(tmp_path / "whole", config)
  every = [("agent", 11), ("random_ratios", AT_EQUAL_COST), ("evolve_bits", AT_EQUAL_COST)]
  assert methods == every
  told = capsys.readouterr().err
  assert f"seed 0, macs {BUDGET}, evolve_bits: mask 0/{AT_EQUAL_COST} " in told
  monkeypatch.setattr(RunLogger, "forget", forget_after_the_row)
  for done, stopped in enumerate(("agent", "random_ratios", "evolve_bits"), start=1):
    with pytest.raises(Preempted, match=f"stopped after {stopped}, whose masks are saved in"):
      run_in(tmp_path / "run", config, lambda step, done=done: len(methods) == 3 + done)
    assert methods[3:] == every[:done]
  run_in(tmp_path / "run", config)
  assert methods[3:] == every
  rows = [json.loads((tmp_path / name / "compare.json").read_text()) for name in ("whole", "run")]
  assert rows[0] == rows[1]
  monkeypatch.setattr(compare, "plan_cells", None)  # a finished comparison must not prepare data
  capsys.readouterr()
  run_in(tmp_path / "run", config)
  assert "| evolve_bits " in capsys.readouterr().out
  page = parsed(tmp_path / "run" / "report.html")
  table, *widths = (table for table in page.tables if table[0][0] in ("method", "group"))
  assert [row[0] for row in table[-3:]] == ["agent", "random_ratios", "evolve_bits"]
  path = tmp_path / "run" / "rows" / f"seed0-macs{BUDGET}-explained.json"
  groups = json.loads(path.read_text())["groups"]
  kept = [f"{len(group['kept'])} → {sum(group['kept'])}" for group in groups]
  assert [width for _, width in widths[0][1:]] == kept


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"compare.searches": ("annealing",)}, "compare searches: 'annealing' is unknown"),
    ({"compare.seeds": (1, 1)}, r"compare seeds \(1, 1\) must be distinct"),
    ({"compare.seeds": (9999999999,)}, r"seeds \(9999999999,\) must be distinct whole numbers"),
    ({"compare.budgets": (0.001,)}, r"budget 0\.001 for macs cannot be reached"),
    ({"dense.checkpoint": "/dense"}, r"dense\.checkpoint is '/dense': only experiments\.prune"),
  ],
)
def test_bad_plans_are_refused_before_anything_is_written(change, sentence, tmp_path):
  config = small_config()
  config.update_from_flattened_dict(change)
  with pytest.raises(gp.InputError, match=sentence):
    run_in(tmp_path / "run", config)
  assert not (tmp_path / "run").exists()


def test_a_search_without_its_criterion_is_refused_before_anything_is_written(tmp_path):
  config = small_config()
  config.criteria, config.compare.searches = ("l2",), ("ratio_agent",)
  with pytest.raises(gp.InputError, match="have ratio_agent, which needs l1, and criteria are l2"):
    run_in(tmp_path / "run", config)
  assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_masks_of_a_comparison_are_judged_again(finetuned, methods, tmp_path):
  config, rows = finetuned_config(), json.loads((finetuned / "compare.json").read_text())
  # A stub search costs ten epochs, one epoch is the fine-tuning itself.
  assert [row["cost"] for row in rows] == [0] * 4 + [10] * 3
  assert {row["epochs"] for row in rows} == {1}
  assert {row["level"] for row in rows} == {"compensated"}
  config.compare.update({"start": str(finetuned), "classical": 2, "equal_cost": True})
  config.compare.searches, config.finetune.epochs = ("evolve_bits",), 2
  run_in(tmp_path / "second", config)
  assert not methods  # no method has searched again
  again = json.loads((tmp_path / "second" / "compare.json").read_text())
  ranked = sorted(rows[:4], key=lambda row: -row["select_accuracy"])
  names = [row["method"] for row in again]
  assert names == [
    *(row["method"] for row in ranked[:2]), "agent", "evolve_bits", earlier.EQUAL_COST
  ]  # fmt: skip
  assert [row["epochs"] for row in again] == [2, 2, 2, 2, 12]
  best = max(again[:2], key=lambda row: row["select_accuracy"])
  assert again[-1]["keep_ratios"] == best["keep_ratios"]
  # The dense network is the same, so that the masks have the same accuracy before fine-tuning.
  before = {row["method"]: row["accuracy_before_finetune"] for row in rows}
  for row in again[:-1]:
    assert row["accuracy_before_finetune"] == before[row["method"]]


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"search.compensation_ridge": 0.1}, "had other settings of search"),
    ({"images.reward": 23}, "had other settings of images"),
    ({"compare.budgets": (0.5, 0.3)}, r"has no budgets \[0\.3\]: it has \[0\.5\]"),
    ({"compare.seeds": (1,)}, r"has no seeds \[1\]"),
    ({"compare.searches": ("evolve_ratios",)}, r"has no searches \['evolve_ratios'\]"),
  ],
)
def test_a_comparison_of_something_else_is_no_start(finetuned, tmp_path, change, sentence):
  config = finetuned_config()
  config.compare.start = str(finetuned)
  config.update_from_flattened_dict(change)
  with pytest.raises(gp.InputError, match=sentence):
    run_in(tmp_path / "second", config)
  assert not (tmp_path / "second").exists()


@pytest.mark.long
def test_cells_that_are_done_elsewhere_are_put_together(parts, methods, tmp_path):
  config = config_of(0, 1)
  run_in(tmp_path / "whole", config)
  places, num_calls = parts
  assert len(methods) == num_calls
  for place in places:
    shutil.copytree(place, tmp_path / place.name)
  (tmp_path / "only1" / "result.json").unlink()  # a part need not be finished
  told = json.loads((tmp_path / "only1" / "config.json").read_text())
  told["config"]["data_dir"] = "another machine's"
  (tmp_path / "only1" / "config.json").write_text(json.dumps(told))
  config.compare.parts = tuple(str(tmp_path / place.name) for place in places)
  run_in(tmp_path / "together", config)
  assert len(methods) == num_calls  # nothing was searched again
  assert (tmp_path / "together" / "report.html").exists()
  # Without seconds, which are measured, the rows are those of the run in one piece.
  whole, together = (
    [{**row, "seconds": 0} for row in json.loads((tmp_path / name / "compare.json").read_text())]
    for name in ("whole", "together")
  )
  assert together == whole
  # A finished comparison needs its parts no more.
  (tmp_path / "only0").rename(tmp_path / "moved")
  run_in(tmp_path / "together", config)
  (tmp_path / "moved").rename(tmp_path / "only0")
  # The dense networks came along, so that the masks can be judged again.
  config.compare.update({"parts": (), "start": str(tmp_path / "together"), "finetune": True})
  run_in(tmp_path / "again", config)
  again = json.loads((tmp_path / "again" / "compare.json").read_text())
  before = lambda rows: {(r["seed"], r["method"]): r["accuracy_before_finetune"] for r in rows}
  assert before(again) == before(together)
  # What was judged again elsewhere has neither masks nor networks of its own.
  config.compare.parts = (str(tmp_path / "again"),)
  run_in(tmp_path / "copied", config)
  assert json.loads((tmp_path / "copied" / "compare.json").read_text()) == again
  assert len(methods) == num_calls


def test_parts_with_different_networks_of_one_seed_are_refused(parts, tmp_path):
  (first, second), _ = parts
  network = "checkpoints/dense"
  shutil.copytree(first, tmp_path / "other")
  shutil.rmtree(tmp_path / "other" / "seed0" / network)
  shutil.copytree(second / "seed1" / network, tmp_path / "other" / "seed0" / network)
  config = config_of(0, 1)
  config.compare.parts = (str(first), str(tmp_path / "other"))
  with pytest.raises(gp.InputError, match=r"only0/seed0 and .*other/seed0 hold different dense"):
    run_in(tmp_path / "together", config)
  assert not (tmp_path / "together").exists()


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"images.reward": 23}, r"images\.reward is 24, here it is 23: a part may differ in its seeds"),
    ({"compare.finetune": True}, r"compare\.finetune is False, here it is"),
    ({"compare.parts": ("/nowhere",)}, "/nowhere is not the workdir of a run"),
  ],
)
def test_a_comparison_of_something_else_is_no_part(parts, tmp_path, change, sentence):
  (first, _), _ = parts
  config = config_of(0, 1)
  config.compare.parts = (str(first),)
  config.update_from_flattened_dict(change)
  with pytest.raises(gp.InputError, match=sentence):
    run_in(tmp_path / "together", config)
  assert not (tmp_path / "together").exists()


def test_other_budgets_hold_beside_each_budget_of_macs(methods, tmp_path, capsys):
  config = small_config()
  config.compare.others.params = 0.4
  config.compare.others.weight_bytes = "6KB"
  run_in(tmp_path / "run", config)
  rows = json.loads((tmp_path / "run" / "compare.json").read_text())
  assert len(rows) == 5
  for row in rows:
    assert row["costs"].keys() == {"macs", "params", "weight_bytes"}
    assert row["costs"]["macs"] == row["macs_ratio"] <= BUDGET
    assert row["costs"]["params"] == row["params_ratio"] <= 0.4
  assert "params ratio" in capsys.readouterr().out
  config.compare.others.params = 0.5
  with pytest.raises(gp.InputError, match=r"compare.others.params is 0\.4, here it is 0\.5"):
    run_in(tmp_path / "run", config)
  config.compare.start = str(tmp_path / "run")
  with pytest.raises(gp.InputError, match=r"had the other budgets .*0\.4.*, here they are .*0\.5"):
    run_in(tmp_path / "second", config)


def test_an_unfinished_comparison_is_no_start(methods, tmp_path):
  config = small_config()
  config.compare.start = str(tmp_path / "nothing")
  with pytest.raises(gp.InputError, match="nothing"):
    run_in(tmp_path / "second", config)


def test_what_a_start_is_needed_for_is_refused_without_one():
  config = small_config()
  config.compare.classical = 2
  with pytest.raises(gp.InputError, match="classical is 2, but start is empty"):
    make_settings(config)
  config.compare.update({"classical": 0, "equal_cost": True})
  with pytest.raises(gp.InputError, match="equal_cost is True and finetune False"):
    make_settings(config)
