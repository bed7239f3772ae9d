"""From a config file and command line to frozen settings, checked in one place."""

from collections.abc import Callable
import dataclasses
import os
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags
import numpy as np

from gatprune_jax import InputError
from gatprune_jax.agent import CriticConfig, DualConfig, PolicyConfig, PPOConfig
from gatprune_jax.criteria import check_criteria
from gatprune_jax.data import DataConfig, Sizes
from gatprune_jax.evaluation import AdaptationConfig, Recipe
from gatprune_jax.search import SEARCHES, SearchConfig

_DEFAULT = os.path.join(os.path.dirname(__file__), "configs", "digits_resnet8.py")
_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file; any field can be set as --config.FIELD=VALUE."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Which network: see `gatprune_jax.models.model` and `eval_function`."""

  name: str
  dtype: str  # of the computation
  options: dict[str, Any]  # of the network's constructor

  def __post_init__(self):
    """Refuses what is computed in neither dtype."""
    if self.dtype not in (choices := ("float32", "bfloat16")):
      raise InputError(f"model dtype {self.dtype!r} is unknown: choose from {', '.join(choices)}")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
  """What `experiments.compare` runs."""

  seeds: tuple[int, ...]
  budgets: tuple[float, ...]  # largest shares of the MACs
  variants: dict[str, SearchConfig]  # of the agent; searches get as many masks as the first
  searches: tuple[str, ...]  # of `gatprune_jax.search.SEARCHES`, beside the agent
  finetune: bool  # False: stop before fine-tuning

  def __post_init__(self):
    """Refuses what there is nothing to compare of."""
    if not self.seeds or not self.budgets or not self.variants:
      raise InputError(
        f"compare seeds {self.seeds}, budgets {self.budgets} and variants "
        f"{tuple(self.variants)}: name one of each at least"
      )
    if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
      raise InputError(f"compare seeds {self.seeds} must be distinct and not negative")
    for name in self.searches:
      if name not in SEARCHES:
        raise InputError(
          f"compare searches: {name!r} is unknown, choose from {', '.join(SEARCHES)}"
        )


@dataclasses.dataclass(frozen=True)
class Settings:
  """A whole experiment. Fields as in the config file."""

  seed: int
  data: DataConfig
  model: ModelConfig
  checkpoint: str  # "": train the dense network first
  weights: str  # PyTorch file that this training starts from; "": from random weights
  dense_recipe: Recipe
  budgets: dict[str, float]
  criteria: tuple[str, ...]
  search: SearchConfig
  finetune: Recipe
  finetune_side_by_side: bool  # masked copies in one step, or compact networks in turn
  compare: CompareConfig


def make_settings(config: Any) -> Settings:
  """Builds the settings of a ConfigDict.

  Raises:
    InputError: a value that no experiment can use.
  """
  tree = config.to_dict()
  compare = tree["compare"]
  compare["variants"] = {
    name: make_search_config(_changed(tree["search"], changes, f"compare variant {name!r}"))
    for name, changes in compare["variants"].items()
  }
  if tree["seed"] < 0:
    raise InputError(f"seed is {tree['seed']}: it must not be negative")
  if tree["dense"]["recipe"]["distillation"] != 0:
    raise InputError("dense.recipe.distillation must be 0: the dense network has no teacher")
  check_criteria(tree["criteria"])
  if set(tree["criteria"]) <= {"random"}:
    raise InputError("criteria names no saliency score besides random: add at least one")
  return Settings(
    seed=tree["seed"],
    data=DataConfig(
      tree["dataset"],
      tree["data_dir"],
      Sizes(**tree["images"]),
      tree["image_size"],
      tree["unreadable_images"],
    ),
    model=ModelConfig(tree["model"].pop("name"), tree["model"].pop("dtype"), tree["model"]),
    checkpoint=tree["dense"]["checkpoint"],
    weights=tree["dense"]["weights"],
    dense_recipe=Recipe(**tree["dense"]["recipe"]),
    budgets=tree["budgets"],
    criteria=tuple(tree["criteria"]),
    search=make_search_config(tree["search"]),
    finetune=Recipe(**tree["finetune"]),
    finetune_side_by_side=tree["finetune_side_by_side"],
    compare=CompareConfig(**compare),
  )


def make_search_config(tree: dict[str, Any]) -> SearchConfig:
  """The search section of a config as settings."""
  parts = {
    "adaptation": AdaptationConfig,
    "policy": PolicyConfig,
    "ppo": PPOConfig,
    "dual": DualConfig,
    "critic": CriticConfig,
  }
  return SearchConfig(**{**tree, **{name: make(**tree[name]) for name, make in parts.items()}})


def _changed(tree: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
  """A nested dict with some of its values replaced."""
  if unknown := set(changes) - set(tree):
    raise InputError(f"{where} changes {sorted(unknown)[0]!r}, which a search does not have")
  return {
    name: _changed(value, changes[name], where)
    if name in changes and isinstance(value, dict)
    else changes.get(name, value)
    for name, value in tree.items()
  }


def run(main: Callable[[Settings, dict[str, Any], str], None]) -> None:
  """Parses the command line and calls `main(settings, config, workdir)`.

  Bad input ends with one sentence on standard error and exit code 1; any other exception is a
  defect and keeps its traceback.
  """

  def guarded(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # orbax tells every file it touches
    try:
      if len(argv) > 1:
        raise InputError(f"argument {argv[1]!r} is not a flag: use --workdir=DIR or --config.X=Y")
      if not _WORKDIR.value:
        raise InputError("no workdir given: add --workdir=DIR")
      config = _CONFIG.value
      main(make_settings(config), _plain(config.to_dict()), _WORKDIR.value)
    except InputError as error:
      _fail(error)

  app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  if not any(argument.lstrip("-").split("=")[0] == "config" for argument in argv):
    # Not the flag's default: fields set on the command line would be looked up in it even
    # where another config is given.
    argv = [argv[0], f"--config={_DEFAULT}", *argv[1:]]
  try:
    rest = flags.FLAGS(argv)
    _CONFIG.value.to_dict()  # a config file that failed to load fails here
    return rest
  except AttributeError as error:  # ml_collections names the missing field in its message
    _fail(_unknown_field(argv, error))
  except OSError as error:  # its last line holds the system's own words
    _fail(InputError(f"--config cannot be loaded: {str(error).splitlines()[-1].strip()}"))
  except (flags.Error, TypeError, ValueError) as error:
    _fail(error)


def _unknown_field(argv: list[str], error: AttributeError) -> InputError:
  """Which argument names a field that the config does not have, and what it may have meant."""
  cause = error.args[0].args[0] if isinstance(error.args[0], KeyError) else str(error)
  key, *hint = cause.splitlines()
  named = [
    argument.split("=")[0].lstrip("-")
    for argument in argv
    if argument.startswith("--config.") and key.strip("'\"") in argument.split("=")[0].split(".")
  ]
  return InputError(f"{' '.join(named)} is not a field of the config. {' '.join(hint)}".strip())


def _fail(error: Exception) -> None:
  print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
  sys.exit(1)


def _plain(value: Any) -> Any:
  """The value with JSON types only."""
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, (tuple, list)):
    return [_plain(item) for item in value]
  return value.item() if isinstance(value, np.generic) else value
