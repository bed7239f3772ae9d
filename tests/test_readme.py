"""Tests that the programs in the README's section "Prune your network" run as written."""

import re

import numpy as np

import gatprune_jax as gp
from tests.pruning.examples import SEARCH, LinenNet, inputs, linen

# The test replaces default settings by short ones, so that the programs take less time.
SHORTER = [
  ('budgets={"macs": 0.5})', 'budgets={"macs": 0.5}, search=SEARCH, finetune=FINETUNE)'),
  ("constraints, data)", "constraints, data, config=SEARCH)"),
  ("gp.Scorer(problem)", "gp.Scorer(problem, SEARCH)"),
  ("search(problem)", "search(problem, SEARCH)"),
  ("(problem, result.masks)(data", "(problem, result.masks, SEARCH)(data"),
  ("finetune(problem, result.masks)", "finetune(problem, result.masks, FINETUNE, SEARCH)"),
]


def programs():
  """Returns the blocks of Python in the README's section "Prune your network"."""
  with open("README.md") as file:
    section = file.read().split("## Prune your network\n")[1].split("\n## ")[0]
  return re.findall("```python\n(.*?)```", section, re.DOTALL)


def test_the_front_door_and_its_parts_run(tmp_path, monkeypatch):
  first, task, parts = programs()
  monkeypatch.chdir(tmp_path)
  network, _, _ = linen()
  x, y = inputs(num=120)
  recipe = gp.Recipe(epochs=1, batch_size=8, learning_rate=0.01)
  names = {"module": LinenNet(), "variables": network.variables, "x": x, "y": y}
  names |= {"SEARCH": SEARCH, "FINETUNE": recipe}
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
