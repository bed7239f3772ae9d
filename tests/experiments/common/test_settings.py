"""Tests that settings of unusable values are refused, and that missing fields have defaults."""

import functools

from ml_collections import ConfigDict
import pytest

from experiments.common.app import last_of_each
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs.checkpointer import CheckpointConfig

TAKEN = "has the name of another method, variant or phase"
# {name: (fields of the section `compare` or `model`, part of the error message)}
BAD = {
  "dropout": ({"model": {"name": "vgg16", "dropout": 0.5}}, "model dropout is 0.5: experiments"),
  "word for dropout": ({"model": {"name": "vgg16", "dropout": "x"}}, "model dropout is x: exper"),
  "truth as seed": ({"seeds": (True,)}, r"seeds \(True,\) must be distinct whole numbers"),
  "word as budget": ({"budgets": ("x",)}, r"budgets \('x',\) must be distinct numbers above 0"),
  "no number as budget": ({"budgets": (float("nan"),)}, r"budgets \(nan,\) must be distinct"),
  "nested budgets": ({"budgets": ((0.1, 0.2),)}, r"budgets \(\(0.1, 0.2\),\) must be distinct"),
  "truth as budget": ({"budgets": (True,)}, r"budgets \(True,\) must be distinct numbers"),
  "budget twice": ({"budgets": (0.5, 0.5)}, r"budgets \(0.5, 0.5\) must be distinct numbers"),
  "search twice": ({"searches": ("evolve_bits",) * 2}, "searches .* must be distinct"),
  "list as search": ({"searches": (["evolve_bits"],)}, r"searches: \['evolve_bits'\] is unknown"),
  "names of one place": ({"variants": {"no critic": {}, "no-critic": {}}}, f"'no-critic' {TAKEN}"),
  "name of a phase": ({"variants": {"finetune": {}}}, f"'finetune' {TAKEN}"),
  "name of a search": ({"variants": {"evolve_bits": {}}}, f"'evolve_bits' {TAKEN}"),
  "name of a pruner": ({"variants": {"l1 global": {}}}, f"'l1 global' {TAKEN}"),
  "name of a path": ({"variants": {"../agent": {}}}, "'../agent' is no name: begin with a"),
  "folder in a name": ({"variants": {"a/b": {}}}, "'a/b' is no name: begin with a letter"),
  "no name": ({"variants": {"": {}}}, "'' is no name: begin with a letter or digit"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_comparisons_are_refused(case):
  changes, words = BAD[case]
  tree = digits_resnet8.get_config().to_dict()
  for name, value in changes.items():
    if name == "model":
      tree["model"] = {"dtype": "auto", "factory": "", **value}
    else:
      tree["compare"][name] = value
  with pytest.raises(gp.InputError, match=words):
    make_settings(Tree(tree))


# {path of a field: (its new value, part of the error message)}
MISMADE = {
  "model.factory": ("make", "model factory 'make' names no function: give MODULE:NAME, such as"),
  "images.val": (3, r"config\.images has val, which no experiment knows: take it out"),
  "search.extra": (1, r"config\.search has extra, which no experiment knows"),
  "search.policy.extra": (1, r"config\.search\.policy has extra, which no"),
  "search.samples": (1.5, r"config\.search\.samples is 1\.5: it must be of type int"),
  "criteria": ("l1", r"config\.criteria is 'l1': it must be of type tuple"),
  "compare.variants": (3, r"config\.compare\.variants is 3: it must be of type dict"),
  "search.critic": (3, r"config\.search\.critic is 3: it must have fields of its own"),
  "finetune.epochs": (True, r"config\.finetune\.epochs is True: it must be of type int"),
  "dense": ("x", r"config\.dense is 'x': it must have fields of its own"),
  "compare.variants.agent": (3, "compare variant 'agent' is 3: it must be fields of a search"),
}


@pytest.mark.parametrize("path", MISMADE)
def test_a_config_of_other_fields_is_refused(path):
  value, words = MISMADE[path]
  tree = digits_resnet8.get_config().to_dict()
  *sections, name = path.split(".")
  inner = functools.reduce(dict.__getitem__, sections, tree)
  inner[name] = value
  with pytest.raises(gp.InputError, match=words):
    make_settings(Tree(tree))


def test_a_field_that_a_config_leaves_out_has_its_default():
  config = digits_resnet8.get_config()
  del config.checkpoints, config.finetune.mixup
  config.model = ConfigDict({"name": "resnet8", "widths": (4, 6, 8), "shortcut": "A"})
  settings = make_settings(config)
  assert settings.checkpoints == CheckpointConfig()
  assert settings.finetune.mixup == 0
  assert (settings.model.dtype, settings.model.options["shortcut"]) == ("auto", "A")


def test_a_resource_without_a_budget_does_not_count():
  config = digits_resnet8.get_config()
  assert make_settings(config).limits == {"macs": 0.25, "params": 1.0}
  config.budgets.activation_bytes = 0.5
  limits = {"macs": 0.25, "params": 1.0, "activation_bytes": 0.5}
  assert make_settings(config).limits == limits


class Tree(dict):
  """A dict in place of a `ConfigDict`, for values that the command line would refuse."""

  def to_dict(self):
    return self


def test_the_last_of_two_arguments_for_a_field_counts():
  given = ["prune", "--workdir=a", "--config.criteria=('l1','l2')", "--workdir=a", "--config=x",
           "--config.seed=1", "--config.criteria=('l1',)"]  # fmt: skip
  assert last_of_each(given) == [
    "prune", "--workdir=a", "--config.criteria=('l1',)", "--workdir=a", "--config=x",
    "--config.seed=1",
  ]  # fmt: skip
