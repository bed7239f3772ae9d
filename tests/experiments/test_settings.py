"""Values that no comparison can use, refused before anything is done."""

import pytest

from experiments.configs import digits_resnet8
from experiments.settings import make_settings
import gatprune_jax as gp

TAKEN = "has the name of another method, variant or phase"
# {name: (fields of the config, words of the sentence)}
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
      tree["model"] = {"dtype": "auto", **value}
    else:
      tree["compare"][name] = value
  with pytest.raises(gp.InputError, match=words):
    make_settings(Tree(tree))


class Tree(dict):
  """A config as far as settings are made of it, with values that flags would not let through."""

  def to_dict(self):
    return self
