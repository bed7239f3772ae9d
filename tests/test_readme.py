"""Tests of the pages for users: their programs run as written, and their links lead somewhere."""

import dataclasses
import importlib.util
from pathlib import Path
import re
import types

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax import models
from tests.pruning.examples import SEARCH, LinenNet, inputs, linen

ROOT = Path(__file__).parents[1]
README, USING = "README.md", "gatprune_jax/USING.md"
PAGES = (
  README, USING, "gatprune_jax/README.md", "gatprune_jax/channels/README.md",
  "experiments/README.md", "experiments/SPEED.md", "experiments/RESULTS.md", "launch/README.md",
)  # fmt: skip

# The tests replace default settings by short ones, so that the programs take less time.
SHORTER = [
  ('budgets={"macs": 0.5})', 'budgets={"macs": 0.5}, search=SEARCH, finetune=FINETUNE)'),
  ("constraints, data)", "constraints, data, config=SEARCH)"),
  ("gp.Scorer(problem)", "gp.Scorer(problem, SEARCH)"),
  ("search(problem)", "search(problem, SEARCH)"),
  ("(problem, result.masks)(data", "(problem, result.masks, SEARCH)(data"),
  ("finetune(problem, result.masks)", "finetune(problem, result.masks, FINETUNE, SEARCH)"),
]


def programs(page, section):
  """Returns the blocks of Python in one section of a page."""
  text = (ROOT / page).read_text(encoding="utf-8")
  return re.findall(
    "```python\n(.*?)```", text.split(f"## {section}\n")[1].split("\n## ")[0], re.DOTALL
  )


@pytest.fixture(scope="module")
def names():
  """Returns what the programs of the front door take for granted."""
  network, _, _ = linen()
  x, y = inputs(num=120)
  recipe = gp.Recipe(epochs=1, batch_size=8, learning_rate=0.01)
  return {"module": LinenNet(), "variables": network.variables, "x": x, "y": y,
          "SEARCH": SEARCH, "FINETUNE": recipe}  # fmt: skip


def test_the_front_door_and_its_parts_run(names, tmp_path, monkeypatch):
  (first, _), (_, task, parts) = (
    programs(README, "Your own network"), programs(USING, "Prune your network")
  )  # fmt: skip
  monkeypatch.chdir(tmp_path)
  names, x = dict(names), names["x"]
  for program in (first, parts):
    for written, shorter in SHORTER:
      program = program.replace(written, shorter)
    exec(program, names)
  np.testing.assert_allclose(
    names["loaded"].apply(names["loaded"].variables, x),
    names["small"].apply(names["small"].variables, x), atol=1e-5,
  )  # fmt: skip
  assert names["result"].masks.shape[1] == 11
  assert len(names["before"]) == len(names["after"]) == len(names["result"].masks)
  assert np.isfinite([*names["scores"], *names["accuracies"]]).all()
  # Only the definition of the task runs, because its use needs a network that returns boxes.
  exec(task.rpartition("gp.prune")[0], names)
  assert names["task"].loss({"box": np.ones((2, 3))}, {"box": np.zeros((2, 3))}).tolist() == [3, 3]


@pytest.mark.parametrize(
  ("page", "section", "number"),
  [(README, "Your own network", 1), (USING, "Find and remove channels yourself", 0)],
)
def test_tracing_and_cutting_run(names, page, section, number, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  program = programs(page, section)[number]
  if importlib.util.find_spec("litert_converter") is None:
    program = "\n".join(
      line for line in program.split("\n") if not line.startswith("gp.export_tflite")
    )
  network, _, _ = linen()
  x = names["x"][:64]
  mask = np.arange(11) % 2 == 0
  given = {"gp": gp, "apply_fn": network.eval_fn, "variables": network.variables, "x": x,
           "mask": mask, "opt_state": network.variables["params"]}  # fmt: skip
  exec(program, given)
  small = given["small"]
  assert small.apply(small.variables, x).shape == network.eval_fn(network.variables, x).shape
  loaded = gp.load("net")
  np.testing.assert_allclose(
    loaded.apply(loaded.variables, x), small.apply(small.variables, x), atol=1e-5
  )


@pytest.mark.long
def test_going_down_the_budgets_ends_with_the_last_network_that_is_accurate_enough(
  names, tmp_path, monkeypatch
):
  program = programs(USING, "Prune your network")[0]
  monkeypatch.chdir(tmp_path)
  tried = []

  def prune(network, data, budgets, workdir):
    tried.append(workdir)
    pruned = gp.prune(network, data, budgets, search=SEARCH, finetune=names["FINETUNE"],
                      criteria=("l1",), workdir=workdir)  # fmt: skip
    # So small a network learns nothing, so the scores that decide are put in their place.
    score = 0.9 if len(tried) == 1 else 0.89
    rows = [*pruned.rows[:-1], pruned.rows[-1]._replace(select_after=score)]
    return dataclasses.replace(pruned, rows=[rows[0]._replace(select_after=1.0), *rows[1:]])

  network = gp.from_linen(names["module"], names["variables"])
  data = gp.data.arrays(names["x"], names["y"], seed=0)
  given = {"gp": types.SimpleNamespace(prune=prune), "network": network, "data": data}
  exec(program, given)
  assert tried == ["front/0.5", "front/0.35"]
  assert 0.35 < given["smallest"].costs["macs"] <= 0.5


def test_patterns_choose_layers():
  module = models.model("resnet20", 10)
  x = np.zeros((1, 8, 8, 3), np.float32)
  variables = module.init(jax.random.key(0), x)
  program = programs(USING, "Find and remove channels yourself")[1]
  *traces, cut = program.strip().split("\n")
  given = {"gp": gp, "apply_fn": module.apply, "variables": variables, "x": x}
  whole = gp.trace(module.apply, variables, x)
  found = [eval(line.partition("#")[0], given).num_channels for line in traces]
  kept, frozen, chosen = found
  # The stem's channels are those of the first stage's second convolutions, which "only" names.
  assert 0 < min(kept, frozen) <= max(kept, frozen) < chosen == whole.num_channels
  mask = np.concatenate([np.full(len(group.channels), not group.has_bypass)
                         for group in whole.groups])  # fmt: skip
  small = eval(cut.partition("#")[0], {**given, "graph": whole, "mask": mask})
  assert gp.macs(whole, mask) < gp.macs(whole, np.ones(whole.num_channels))
  assert small.apply(small.variables, x).shape == (1, 10)


def test_the_readme_is_short():
  assert (ROOT / README).stat().st_size <= 8 * 1024


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
  text = (ROOT / page).read_text(encoding="utf-8")
  for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
    if not target.startswith("http"):
      assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_contents_name_the_headings(page):
  text = (ROOT / page).read_text(encoding="utf-8")
  anchor = lambda heading: re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
  anchors = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
  assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
