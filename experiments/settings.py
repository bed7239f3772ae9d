"""From a config tree to frozen settings: every field is checked here, before anything is done."""

from collections.abc import Callable, Collection, Iterable
import dataclasses
import inspect
import itertools
import math
import re
from typing import Any

from experiments.journal import path_name
from gatprune_jax import InputError
from gatprune_jax.criteria import CRITERIA, SCOPES, check_criteria
from gatprune_jax.data import DataConfig, Sizes
from gatprune_jax.evaluation import Recipe
from gatprune_jax.models import DTYPES
from gatprune_jax.resume import CheckpointConfig
from gatprune_jax.search import SEARCHES, SearchConfig

_SECTIONS = (
  "seed", "dataset", "data_dir", "image_size", "unreadable_images", "images", "model", "dense",
  "budgets", "criteria", "search", "finetune", "finetune_side_by_side", "compare", "checkpoints",
)  # fmt: skip
_PLAIN = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
_VARIANT = re.compile("[A-Za-z0-9][A-Za-z0-9 ,.+=_-]{0,99}")  # names become those of directories


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Which network: see `gatprune_jax.models.model` and `eval_function`."""

  name: str
  dtype: str  # of the computation, of `gatprune_jax.models.DTYPES`
  options: dict[str, Any]  # of the network's constructor

  def __post_init__(self):
    """Refuses a dtype that there is not, and dropout, to which training gives no key."""
    if self.dtype not in DTYPES:
      raise InputError(f"model dtype {self.dtype!r} is unknown: choose from {', '.join(DTYPES)}")
    if (dropout := self.options.get("dropout", 0)) != 0:
      raise InputError(f"model dropout is {dropout}: experiments train without any, set it to 0")


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
    valid = all(type(seed) is int and 0 <= seed < 2**32 for seed in self.seeds)  # no bool
    if not valid or len(set(self.seeds)) < len(self.seeds):
      raise InputError(
        f"compare seeds {self.seeds} must be distinct whole numbers, at least 0 and below 2**32"
      )
    is_share = lambda b: isinstance(b, (int, float)) and type(b) is not bool and 0 < b <= 1
    valid = all(map(is_share, self.budgets))
    if not valid or len(set(self.budgets)) < len(self.budgets):
      raise InputError(
        f"compare budgets {self.budgets} must be distinct numbers above 0, at most 1"
      )
    for name in self.searches:
      if name not in tuple(SEARCHES):
        raise InputError(
          f"compare searches: {name!r} is unknown, choose from {', '.join(SEARCHES)}"
        )
    if len(set(self.searches)) < len(self.searches):
      raise InputError(f"compare searches {self.searches} must be distinct")
    _check_variants(self.variants)


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
  finetune_side_by_side: bool  # in one step, at one shape, or compact networks in turn
  compare: CompareConfig
  checkpoints: CheckpointConfig


def make_settings(config: Any) -> Settings:
  """Builds the settings of a ConfigDict.

  Raises:
    InputError: a value that no experiment can use.
  """
  tree = config.to_dict()
  _check_names(tree, _SECTIONS, "config")
  for name in ("images", "model", "dense", "search", "compare"):
    if not isinstance(tree[name], dict):
      raise InputError(f"config.{name} is {tree[name]!r}: it must have fields of its own")
  for name in ("name", "dtype"):
    if name not in tree["model"]:
      raise InputError(f"config.model has no {name}: set it, as in configs/digits_resnet8.py")
  _check_names(tree["dense"], ("recipe", "checkpoint", "weights"), "config.dense")
  _check_numbers(tree)
  compare = tree["compare"]
  compare["variants"] = {
    name: make_search_config(_changed(tree["search"], changes, f"compare variant {name!r}"))
    for name, changes in compare["variants"].items()
  }
  if not 0 <= tree["seed"] < 2**32:
    raise InputError(f"seed is {tree['seed']}: it must be at least 0 and below 2**32")
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
      _made(Sizes, tree["images"], "config.images"),
      tree["image_size"],
      tree["unreadable_images"],
    ),
    model=ModelConfig(tree["model"].pop("name"), tree["model"].pop("dtype"), tree["model"]),
    checkpoint=tree["dense"]["checkpoint"],
    weights=tree["dense"]["weights"],
    dense_recipe=_made(Recipe, tree["dense"]["recipe"], "config.dense.recipe"),
    budgets=tree["budgets"],
    criteria=tuple(tree["criteria"]),
    search=make_search_config(tree["search"]),
    finetune=_made(Recipe, tree["finetune"], "config.finetune"),
    finetune_side_by_side=tree["finetune_side_by_side"],
    compare=_made(CompareConfig, compare, "config.compare"),
    checkpoints=_made(CheckpointConfig, tree["checkpoints"], "config.checkpoints"),
  )


def make_search_config(tree: dict[str, Any]) -> SearchConfig:
  """The search section of a config as settings."""
  return _made(SearchConfig, tree, "config.search")


def _made(cls: Callable[..., Any], tree: Any, where: str) -> Any:
  """`cls(**tree)`, whose fields and their plain types are checked; sections are made likewise."""
  fields = inspect.get_annotations(cls)
  if not isinstance(tree, dict):
    raise InputError(f"{where} is {tree!r}: it must have fields of its own")
  _check_names(tree, fields, where)
  made = {}
  for name, kind in fields.items():
    value = tree[name]
    if kind in _PLAIN and type(value) not in _PLAIN[kind]:
      raise InputError(f"{where}.{name} is {value!r}: it must be of type {kind.__name__}")
    is_section = dataclasses.is_dataclass(kind)
    made[name] = _made(kind, value, f"{where}.{name}") if is_section else value
  return cls(**made)


def _check_names(tree: dict[str, Any], names: Collection[str], where: str) -> None:
  """Refuses fields that are missing, or that there are not."""
  for name in names:
    if name not in tree:
      raise InputError(f"{where} has no {name}: set it, as in configs/digits_resnet8.py")
  for name in tree:
    if name not in names:
      raise InputError(f"{where} has {name}, which no experiment knows: take it out")


def _check_variants(names: Iterable[Any]) -> None:
  """Refuses names that are those of other methods or phases, or would share their places."""
  pruners = map(" ".join, itertools.product(CRITERIA, SCOPES))
  others = ("dense", "training", "finetune", *SEARCHES, *pruners)
  taken = {path_name(name): name for name in others}
  for name in names:
    if not (isinstance(name, str) and _VARIANT.fullmatch(name)):
      raise InputError(
        f"compare variant {name!r} is no name: begin with a letter or digit, and have at most 100 "
        "of these, spaces, and , . + = _ -"
      )
    if (other := taken.get(path_name(name))) is not None:
      raise InputError(
        f"compare variant {name!r} has the name of another method, variant or phase, {other!r}: "
        "take one that differs by more than spaces"
      )
    taken[path_name(name)] = name


def _check_numbers(tree: dict[str, Any], where: str = "config") -> None:
  """Refuses NaN and infinity, which no comparison below would."""
  for name, value in tree.items():
    if isinstance(value, dict):
      _check_numbers(value, f"{where}.{name}")
    elif isinstance(value, float) and not math.isfinite(value):
      raise InputError(f"{where}.{name} is {value}: it must be a finite number")


def _changed(tree: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
  """A nested dict with some of its values replaced."""
  if not isinstance(changes, dict):
    raise InputError(f"{where} is {changes!r}: it must be fields of a search, with their values")
  if unknown := set(changes) - set(tree):
    raise InputError(f"{where} changes {sorted(unknown)[0]!r}, which a search does not have")
  return {
    name: _changed(value, changes[name], where)
    if name in changes and isinstance(value, dict)
    else changes.get(name, value)
    for name, value in tree.items()
  }
