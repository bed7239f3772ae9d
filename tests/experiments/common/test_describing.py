"""Tests of `--describe_config`: every field has a meaning, written where the field is defined."""

import dataclasses
import re

import pytest

from experiments.common.config_tree import as_config, as_tree, is_open, settable
from experiments.common.describing import describe_config, meanings
from experiments.common.settings import Settings, default_config, make_settings
from experiments.configs import digits_resnet8
from gatprune_jax.training import Recipe
from tests.experiments.mains import run


def dataclasses_of(section):
  """Returns the dataclasses of a section and of all sections in it."""
  values = (getattr(section, field.name) for field in dataclasses.fields(section))
  inner = (dataclasses_of(value) for value in values if dataclasses.is_dataclass(value))
  return {type(section)}.union(*inner)


def leaves(tree, prefix=""):
  """Yields the names of all values, as they are set on the command line."""
  for name, value in tree.items():
    if isinstance(value, dict) and value:
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}"


def listed(text):
  """Returns {name: value} of the lines of a listing."""
  return dict(re.findall(r"^([a-z]\S*) = (.*?) *(?:  #.*)?$", text, re.MULTILINE))


@pytest.mark.parametrize("cls", sorted(dataclasses_of(Settings()), key=lambda cls: cls.__name__))
def test_every_field_has_a_default_and_a_meaning(cls):
  assert as_tree(cls()).keys() == {f.name for f in settable(cls) if not is_open(f)}
  told = meanings(cls)
  assert set(told) == {field.name for field in dataclasses.fields(cls)}
  assert min(map(len, told.values())) > 5


def test_a_config_that_changes_nothing_is_the_defaults():
  assert make_settings(default_config()) == Settings()
  assert (
    as_tree(make_settings(digits_resnet8.get_config())) == digits_resnet8.get_config().to_dict()
  )


def test_the_listing_names_every_field_of_the_default_config():
  done = run("prune", "--describe_config")
  assert done.returncode == 0, done.stderr
  told = listed(done.stdout)
  assert sorted(told) == sorted(leaves(digits_resnet8.get_config().to_dict()))
  assert told["search.updates"] == "44"
  assert told["compare.variants.agent"] == "{}"
  assert re.search(r"^model\.widths = \(16, 32, 64\) +# the network's own", done.stdout, re.M)
  assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_listing_is_of_the_given_config(tmp_path):
  path = tmp_path / "nothing.py"
  path.write_text(
    "from experiments.common.settings import default_config\n\n\ndef get_config():\n"
    "  return default_config()\n"
  )
  done = run("train", f"--config={path}", "--describe_config")
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"{describe_config(Settings())}\n"
  assert listed(done.stdout)["search.updates"] == "100"
  done = run("train", f"--config={path}", "--describe_config", "--config.search.updates=7")
  assert listed(done.stdout)["search.updates"] == "7"


@dataclasses.dataclass(frozen=True)
class CarefulRecipe(Recipe):
  """A recipe with one more field.

  Attributes:
    patience: epochs without
      improvement.
  """

  patience: int = 3


@dataclasses.dataclass(frozen=True)
class CarefulSettings(Settings):
  """Settings of an experiment whose fine-tuning recipe is a `CarefulRecipe`.

  Attributes:
    finetune: carefully done.
  """

  finetune: CarefulRecipe = dataclasses.field(default_factory=CarefulRecipe)


def test_a_field_is_written_in_one_place():
  config = as_config(CarefulSettings())
  assert config.finetune.patience == 3
  told = describe_config(CarefulSettings())
  (line,) = [line for line in told.splitlines() if line.startswith("finetune.patience")]
  assert re.fullmatch("finetune.patience = 3 +# epochs without improvement.", line)
  assert "\n# finetune: carefully done.\n" in told
  assert "\nfinetune.epochs = 20 " in told
