"""Tests of the mains as users run them: real processes, their files and their error messages."""

import dataclasses
import html
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from experiments.common.settings import make_settings
from experiments.configs import digits_ablations, digits_resnet8
import gatprune_jax as gp
from gatprune_jax.data import load_dataset
from gatprune_jax.models import cifar_resnet
from gatprune_jax.reporting.page import SECTIONS
from gatprune_jax.runs.checkpoint import restore_variables, save_variables
from gatprune_jax.runs.report import Row, comparison_cells
from tests.experiments.mains import RESNET, SMALL, contents, metrics, run
from tests.reporting.pages import parsed


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
  """Returns the workdir of a finished run, and the completed process."""
  workdir = str(tmp_path_factory.mktemp("prune") / "run")
  done = run("prune", f"--workdir={workdir}", "--config.budgets.params=0.5", *RESNET)
  assert done.returncode == 0, done.stderr
  return workdir, done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  workdir = str(tmp_path_factory.mktemp("train") / "run")
  done = run("train", f"--workdir={workdir}", *RESNET)
  assert done.returncode == 0, done.stderr
  return workdir, done


def test_prune_writes_its_result(pruned):
  workdir, done = pruned
  with open(os.path.join(workdir, "result.json")) as file:
    result = json.load(file)
  assert result["network"] == "resnet8-B-4-6-8"
  assert (result["dataset"], result["seed"]) == ("digits", 0)
  assert result["budgets"] == {"macs": 0.25, "params": 0.5}
  assert result["feasible"] is True
  assert result["resources"].keys() == {"macs", "params"}
  for cost in result["resources"].values():
    assert cost["smallest"] <= cost["pruned"] <= cost["limit"] < cost["dense"]
  assert result["resources"]["macs"]["pruned"] == result["pruned"]["macs"]
  dense, small = result["dense"], result["pruned"]
  assert small["macs_ratio"] == small["macs"] / dense["macs"] <= 0.25
  assert small["params_ratio"] == small["params"] / dense["params"] <= 0.5
  assert 0 <= small["test_accuracy_before_finetune"] <= 1
  assert set(result["search"]) == {"evaluations", "updates", "seconds"}
  assert result["search"]["updates"] == 2
  assert {"jax", "flax", "gatprune_jax", "python"} <= set(result["versions"])
  methods = [row["method"] for row in result["methods"]]
  assert methods == [
    "dense", "random uniform", "random global", "l1 uniform", "l1 global", "bn_scale uniform",
    "bn_scale global", "agent",
  ]  # fmt: skip
  for method in methods:
    assert f"| {method} " in done.stdout
  assert all(row["macs_ratio"] <= 0.25 for row in result["methods"][1:])


def test_the_workdir_tells_the_whole_config(pruned):
  workdir, _ = pruned
  with open(os.path.join(workdir, "config.json")) as file:
    settings = make_settings(ConfigDict(json.load(file)["config"]))
  default = make_settings(digits_resnet8.get_config())
  assert settings.budgets == {
    "macs": 0.25, "params": 0.5, "activation_bytes": None, "weight_bytes": None, "latency": None
  }  # fmt: skip
  assert settings.search.policy == dataclasses.replace(default.search.policy, layers=1)
  assert settings.finetune == dataclasses.replace(default.finetune, epochs=2)
  assert (settings.images, settings.compare) == (default.images, default.compare)


def test_the_pruned_network_runs_without_its_code(pruned):
  workdir, _ = pruned
  with open(os.path.join(workdir, "result.json")) as file:
    result = json.load(file)
  loaded = gp.load(os.path.join(workdir, "pruned"))
  test = load_dataset().test
  logits = loaded.apply(loaded.variables, jnp.asarray(test.x))
  accuracy = float((np.asarray(logits).argmax(-1) == test.y).mean())
  assert accuracy == pytest.approx(result["pruned"]["test_accuracy"], abs=1e-6)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(loaded.variables["params"]))
  assert parameters == result["pruned"]["params"]


def test_the_report_shows_the_result(pruned):
  workdir, done = pruned
  with open(os.path.join(workdir, "result.json")) as file:
    result = json.load(file)
  path = os.path.join(workdir, "report.html")
  assert f"The report is in {path}." in done.stdout
  with open(path) as file:
    shown = html.unescape(file.read()).replace("\N{NO-BREAK SPACE}", " ")
  said = [line for line in done.stdout.split("\n") if "best classical pruner by" in line]
  assert len(said) == 1
  assert said[0] in shown
  page = parsed(path)
  assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
  headers, cells = comparison_cells([Row(**row) for row in result["methods"]], "accuracy")
  assert page.tables[0] == [headers, *cells]
  kept = [int(width.split()[-1]) for _, width in page.tables[1][1:]]
  assert kept == list(result["pruned"]["widths"].values())
  with open(os.path.join(workdir, "explained.json")) as file:
    groups = json.load(file)["groups"]
  with np.load(os.path.join(workdir, "masks.npz")) as masks:
    assert sum(sum(group["kept"]) for group in groups) == masks["agent"].sum()
  shares = [share for group in groups for share in group["explained"]]
  assert all(0 <= share <= 1 for share in shares)
  # The settings that the test gives are those that differ, besides those of the default config.
  shown = {name: value for name, value, _ in page.tables[3][1:]}
  assert shown["model.widths"] == "[4, 6, 8]"
  assert shown["search.updates"] == "2"


def test_metrics_have_a_line_for_every_step(pruned):
  workdir, _ = pruned
  with open(os.path.join(workdir, "metrics.jsonl")) as file:
    lines = [json.loads(line) for line in file]
  steps = [(line["phase"], line["step"]) for line in lines]
  assert steps == (
    [("dense", n) for n in (1, 2, 3)]
    + [("search", n) for n in (1, 2)]
    + [("finetune", n) for n in (1, 2)]
  )
  assert {"reward", "accuracy", "cost", "multiplier", "entropy", "kl"} <= set(lines[3])
  assert len(lines[3]["cost"]) == 2


def test_the_progress_line_names_what_it_shows(pruned):
  _, done = pruned
  last = [line for line in done.stderr.splitlines() if "search update 2/2" in line][-1]
  for name in ("reward=", "accuracy=", "cost=macs", "lambda=", "entropy=", "best_feasible=", " < "):
    assert name in last
  assert "Traceback" not in done.stderr


def test_a_finished_workdir_says_so(pruned):
  workdir, done = pruned
  before = contents(workdir)
  # A run that is killed right after its result has no report yet.
  os.remove(os.path.join(workdir, "report.html"))
  again = run("prune", f"--workdir={workdir}", "--config.budgets.params=0.5", *RESNET)
  assert again.returncode == 0
  assert "is finished" in again.stdout
  assert done.stdout.splitlines()[0] in again.stdout
  assert contents(workdir) == before


@pytest.mark.slow  # `test_interruptions` stops real processes
def test_an_interrupted_run_is_finished_by_the_same_command(pruned, tmp_path):
  # A run that was stopped during its search leaves the dense network, and no result.
  workdir, _ = pruned
  stopped = tmp_path / "stopped"
  subprocess.run(["cp", "-r", workdir, stopped], check=True)
  for name in ("result.json", "proposals.npz"):
    os.remove(stopped / name)
  shutil.rmtree(stopped / "checkpoints" / "search")
  again = run("prune", f"--workdir={stopped}", "--config.budgets.params=0.5", *RESNET)
  assert again.returncode == 0, again.stderr
  assert "dense epoch" not in again.stderr
  results = []
  for directory in (workdir, stopped):
    with open(os.path.join(directory, "result.json")) as file:
      results.append(json.load(file))
  assert results[0]["methods"] == results[1]["methods"]
  assert metrics(stopped) == metrics(workdir)


def test_same_seed_same_bits(pruned, trained):
  # The two fixtures train the same dense network in two processes. The test above runs everything
  # after that training twice.
  dense = [line for line in metrics(pruned[0]) if line["phase"] == "dense"]
  assert dense == metrics(trained[0])
  assert len(dense) == 3


@pytest.mark.long
def test_prune_starts_from_a_trained_network(trained, tmp_path):
  train_workdir, done = trained
  assert "select accuracy" in done.stdout
  assert "is finished" in run("train", f"--workdir={train_workdir}", *RESNET).stdout
  workdir = tmp_path / "run"
  done = run("prune", f"--workdir={workdir}", f"--config.dense.checkpoint={train_workdir}", *RESNET)
  assert done.returncode == 0, done.stderr
  assert "dense epoch" not in done.stderr
  with open(os.path.join(train_workdir, "result.json")) as file:
    dense = json.load(file)
  with open(workdir / "result.json") as file:
    assert json.load(file)["dense"]["test_accuracy"] == dense["test_accuracy"]


def assert_refused(done, words):
  assert done.returncode == 1
  assert words in done.stderr
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith("error: ")
  assert done.stdout == ""


@pytest.mark.long
def test_rounds_keep_to_the_budgets_of_the_first_network(tmp_path):
  workdir = str(tmp_path / "run")
  arguments = (f"--workdir={workdir}", *SMALL, "--config.criteria=('l1',)")
  done = run("prune", *arguments, "--config.rounds=2")
  assert done.returncode == 0, done.stderr
  assert "round 1 of 2: macs 0.5, params 1 of the first network" in done.stderr
  with open(os.path.join(workdir, "result.json")) as file:
    result = json.load(file)
  dense, small = result["dense"], result["pruned"]
  assert result["feasible"] is True
  assert small["macs_ratio"] == small["macs"] / dense["macs"] <= 0.25
  assert result["methods"][0]["macs_ratio"] == 1
  for number in (1, 2):
    folder = os.path.join(workdir, f"round_{number}")
    assert [line for line in metrics(folder) if line["phase"] == "finetune"]
    assert not os.path.exists(os.path.join(folder, "checkpoints", "finetune"))
  loaded = gp.load(os.path.join(workdir, "pruned"), trainable=True)
  assert loaded.origin.costs["macs"] == dense["macs"]
  refused = run("prune", *arguments, "--config.rounds=3")
  assert refused.returncode == 1
  assert "rounds" in refused.stderr


def test_a_workdir_is_not_given_to_another_run(pruned):
  workdir, _ = pruned
  before = contents(workdir)
  place = f"--workdir={workdir}"
  assert_refused(run("prune", place, *RESNET), "budgets.params is 0.5, here it is 1.0")
  assert_refused(run("train", place, *RESNET), "holds a run of experiments.prune")
  assert contents(workdir) == before


def test_a_network_that_was_trained_on_images_that_judge_is_refused(trained, tmp_path):
  checkpoint = f"--config.dense.checkpoint={trained[0]}"
  for change, words in (
    ("--config.seed=1", "was trained with seed 0, here it is 1: images that it learned"),
    ("--config.images.select=299", "was trained with images.select 300, here it is 299"),
  ):
    done = run("prune", f"--workdir={tmp_path / 'run'}", checkpoint, change, *RESNET)
    assert_refused(done, words)
  assert not (tmp_path / "run").exists()


def broken_checkpoint(trained, tmp_path, change):
  """Writes a checkpoint whose stem kernel is changed, and returns the flag that names it.

  Args:
    trained: workdir of a trained network.
    tmp_path: where the checkpoint is written.
    change: a function of the kernel `[3, 3, 1, 4]`.
  """
  path = os.path.join(trained, "checkpoints", "dense")
  module = cifar_resnet(8, 10, (4, 6, 8), "B")
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  variables = restore_variables(path, shapes)
  params = variables["params"]
  params["stem"]["kernel"] = change(params["stem"]["kernel"])
  save_variables(str(tmp_path / "broken" / "checkpoints" / "dense"), variables)
  return f"--config.dense.checkpoint={tmp_path / 'broken'}"


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda kernel: kernel.at[0].set(jnp.nan), "params/stem/kernel holds 12 values that are NaN"),
    (lambda kernel: kernel[..., :3], "params/stem/kernel is float32(3, 3, 1, 3) there"),
  ],
)
def test_a_bad_checkpoint_is_refused(trained, tmp_path, change, words):
  flag = broken_checkpoint(trained[0], tmp_path, change)
  done = run("prune", f"--workdir={tmp_path / 'run'}", flag, *RESNET)
  assert_refused(done, words)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("network", "searches"),
  [
    pytest.param(SMALL, ("evolve_bits",), marks=pytest.mark.long),
    pytest.param(RESNET, ("random_ratios", "evolve_bits", "ratio_agent"), marks=pytest.mark.slow),
  ],
  ids=["small", "resnet"],
)
def test_compare_gives_every_search_the_same_number_of_masks_and_continues(
  network, searches, tmp_path
):
  workdir = str(tmp_path / "run")
  arguments = (
    f"--workdir={workdir}", *network, "--config.search.elites=3", "--config.compare.seeds=(3,4)",
    "--config.search.refinement=3", "--config.compare.budgets=(0.5,)",
    f"--config.compare.searches={searches}",
  )  # fmt: skip
  done = run("compare", *arguments)
  assert done.returncode == 0, done.stderr
  with open(os.path.join(workdir, "compare.json")) as file:
    rows = json.load(file)
  first = [row for row in rows if row["seed"] == 3]
  methods = [row["method"] for row in first]
  assert methods[6:] == ["agent", *searches]  # after three criteria in two scopes
  # Every search spends what the agent spent, and at most the confirmation of its elites more.
  (agent_row, *others) = first[6:]
  for row in others:
    assert row["evaluations"] >= agent_row["evaluations"]
    assert row["cost"] == pytest.approx(agent_row["cost"], rel=0.2)
  assert [row["evaluations"] for row in first[:6]] == [0] * 6
  for row in rows:
    assert row["budget"] == 0.5
    assert row["macs_ratio"] <= 0.5
    assert min(row["accuracy_before_finetune"], row["select_accuracy"], row["test_accuracy"]) >= 0
    assert row["method"] in done.stdout
    assert 0 < min(row["keep_ratios"]) <= max(row["keep_ratios"]) <= 1
  with open(os.path.join(workdir, "compare.png"), "rb") as file:
    assert file.read(8) == b"\x89PNG\r\n\x1a\n"

  told = subprocess.run(
    [sys.executable, "-m", "experiments.collapse", workdir], capture_output=True, text=True,
    check=True,
  ).stdout  # fmt: skip
  agent = next(row for row in first if row["method"] == "agent")
  line = next(line for line in told.splitlines() if line.startswith("| 3 "))
  assert f"{np.std(agent['keep_ratios']):.3f}" in line
  assert "2 of 2 within the budget" in told
  # A row that exists is not computed again. A row that is missing is computed from the proposals
  # that the searches saved.
  path = os.path.join(workdir, "rows", "seed3-macs0.5.json")
  with open(path) as file:
    stored = json.load(file)
  stored[0]["method"] = "told apart"
  with open(path, "w") as file:
    json.dump(stored, file)
  os.remove(os.path.join(workdir, "rows", "seed4-macs0.5.json"))
  os.remove(os.path.join(workdir, "result.json"))
  again = run("compare", *arguments)
  assert again.returncode == 0, again.stderr
  assert "agent: update" not in again.stderr
  with open(os.path.join(workdir, "compare.json")) as file:
    repeated = json.load(file)
  assert repeated[0] == stored[0]
  timeless = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
  assert timeless(repeated[len(first) :]) == timeless(rows[len(first) :])  # seed 4, computed again


def test_variants_of_the_agent_change_what_they_name():
  config = digits_ablations.get_config()
  settings = make_settings(config)
  full = settings.variant("agent")
  assert full == settings.search
  assert settings.variant("no critic") == dataclasses.replace(
    full, critic=dataclasses.replace(full.critic, window=0)
  )
  assert settings.variant("projection") == dataclasses.replace(full, constraint="projection")
  config.compare.variants = {"agent": {}, "other": {"critic": {"windows": 0}}}
  with pytest.raises(gp.InputError, match="variant 'other' changes 'windows'"):
    make_settings(config)


def test_compare_refuses_a_bad_plan_before_it_writes(tmp_path):  # `test_compare` has more of them
  workdir = tmp_path / "run"
  # The smallest of the default budgets cannot be reached with so few channels.
  plan = ("--config.compare.budgets=(0.25,)", "--config.finetune.batch_size=5000")
  done = run("compare", f"--workdir={workdir}", *RESNET, *plan)
  assert done.returncode == 1
  assert "batch_size 5000 exceeds the 697 training images" in done.stderr
  assert not workdir.exists()
