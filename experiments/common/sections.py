"""Sections of a config that only experiments have; the other sections belong to the library."""

from collections.abc import Iterable
import dataclasses
import itertools
import re
from typing import Any

from experiments.common.config_tree import MIXED, OPEN
from gatprune_jax import InputError
from gatprune_jax.channels import RESOURCES
from gatprune_jax.criteria import CRITERIA, SCOPES
from gatprune_jax.models import DTYPES
from gatprune_jax.runs.logger import path_name
from gatprune_jax.search import SEARCHES
from gatprune_jax.training import Recipe

_VARIANT = re.compile("[A-Za-z0-9][A-Za-z0-9 ,.+=_-]{0,99}")  # names become names of directories


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Which network is pruned.

  Attributes:
    name: a key of `gatprune_jax.models.MODELS`; not used if there is a factory.
    dtype: dtype of the computation: "float32", "bfloat16", or "auto", which is bfloat16 on
      accelerators and float32 on CPU.
    factory: "my_package.my_module:make" for a network that is not in `gatprune_jax.models`: a
      function of the number of classes and the image shape that returns a gatprune_jax Network;
      "": no factory.
    options: the network's own option, an argument of its constructor.
  """

  name: str = "resnet20"
  dtype: str = "auto"
  factory: str = ""
  options: dict[str, Any] = dataclasses.field(default_factory=dict, metadata=OPEN)

  def __post_init__(self):
    """Refuses an unknown dtype, a factory that names no function, and dropout.

    Dropout is refused because training passes it no random key.
    """
    if self.dtype not in DTYPES:
      raise InputError(f"model dtype {self.dtype!r} is unknown: choose from {', '.join(DTYPES)}")
    module, _, function = self.factory.partition(":")
    names = [*module.split("."), function]
    if self.factory and not all(name.isidentifier() for name in names):
      raise InputError(
        f"model factory {self.factory!r} names no function: give MODULE:NAME, such as "
        "my_package.my_module:make"
      )
    if (dropout := self.options.get("dropout", 0)) != 0:
      raise InputError(f"model dropout is {dropout}: experiments train without any, set it to 0")


@dataclasses.dataclass(frozen=True)
class DenseConfig:
  """Where the trained dense network comes from.

  Attributes:
    checkpoint: workdir of a finished experiments.train, whose network experiments.prune prunes;
      "": the dense network is trained first.
    weights: PyTorch file of the weights that training starts from; "": random weights.
    trained: whether the variables of model.factory or dense.weights are trained already; the
      network is then pruned without being trained first.
    recipe: how the dense network is trained; distillation must be 0, because there is no teacher.
  """

  checkpoint: str = ""
  weights: str = ""
  trained: bool = False
  recipe: Recipe = dataclasses.field(
    default_factory=lambda: Recipe(
      epochs=100, learning_rate=0.1, warmup_epochs=2.0, distillation=0.0, temperature=1.0
    )
  )

  def __post_init__(self):
    """Refuses distillation, and a checkpoint beside variables that are trained already."""
    if self.recipe.distillation != 0:
      raise InputError("dense.recipe.distillation must be 0: the dense network has no teacher")
    if self.trained and self.checkpoint:
      raise InputError(
        f"dense.trained is True and dense.checkpoint is {self.checkpoint!r}: each gives a trained "
        "network, take one of them"
      )


@dataclasses.dataclass(frozen=True)
class LatencyConfig:
  """Where the times come from that a budget for latency needs.

  Attributes:
    table: file of a latency table, of this or of another device, as experiments.prune leaves one in
      its workdir (`latency_table.json`). "": experiments.prune and experiments.latency measure one
      on the device at hand; other experiments need a file.
  """

  table: str = ""


@dataclasses.dataclass(frozen=True)
class CompareConfig:
  """What `experiments.compare` runs.

  Attributes:
    seeds: seeds of the experiment; each has a dense network of its own.
    budgets: largest shares of the dense network's MACs; every method prunes to each of them.
    others: largest costs in other resources, as in `budgets` of the whole experiment; they hold
      beside each budget, and None leaves the resource out.
    variants: variants of the agent, {name: {field of search: other value}}; the searches may score
      as many masks as cost what the first variant spent.
    searches: searches that are compared with the agent, keys of `gatprune_jax.search.SEARCHES`.
    finetune: whether the pruned networks are fine-tuned; if not, they are judged as they are.
    start: workdir of a finished experiments.compare whose dense networks and masks are judged
      again, for example after a longer fine-tuning; the settings of the search must be the same.
      "": dense networks are trained, and masks are searched.
    parts: workdirs of comparisons of the same settings, with other seeds or budgets; what is done
      there is not done again.
    classical: number of classical pruners that are judged, the best of `start` at each budget on
      the select part; 0: all of them.
    equal_cost: whether the best classical pruner on the select part is fine-tuned once more, for as
      many epochs as the search and the fine-tuning of the first variant cost together.
  """

  seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
  budgets: tuple[float, ...] = (0.5, 0.25)
  others: dict[str, float | str | None] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(sorted({*RESOURCES} - {"macs"})), metadata=MIXED
  )
  variants: dict[str, dict[str, Any]] = dataclasses.field(default_factory=lambda: {"agent": {}})
  searches: tuple[str, ...] = ("random_ratios", "evolve_ratios", "evolve_bits", "ratio_agent")
  finetune: bool = True
  start: str = ""
  parts: tuple[str, ...] = ()
  classical: int = 0
  equal_cost: bool = False

  def __post_init__(self):
    """Refuses empty, repeated or invalid seeds, budgets, variants and searches."""
    if "macs" in self.others:
      raise InputError("compare others has macs, whose budgets are in compare.budgets: take it out")
    if not self.variants:
      raise InputError(f"compare variants {tuple(self.variants)}: name one at least")
    _check_cells("compare", self.seeds, self.budgets)
    for name in self.searches:
      if name not in tuple(SEARCHES):
        raise InputError(
          f"compare searches: {name!r} is unknown, choose from {', '.join(SEARCHES)}"
        )
    if len(set(self.searches)) < len(self.searches):
      raise InputError(f"compare searches {self.searches} must be distinct")
    if self.classical and not self.start:
      raise InputError(
        f"compare classical is {self.classical}, but start is empty: the best classical pruners "
        "are those of the comparison in start, so name its workdir, or set classical to 0"
      )
    if self.equal_cost and not self.finetune:
      raise InputError("compare equal_cost is True and finetune False: set one of them otherwise")
    _check_variants(self.variants)

  @property
  def limits(self) -> dict[str, float | str]:
    """The others that are not None, {resource: share of the dense network's cost, or a cost}."""
    return {name: limit for name, limit in self.others.items() if limit is not None}


@dataclasses.dataclass(frozen=True)
class FidelityConfig:
  """What `experiments.fidelity` measures.

  Attributes:
    seeds: seeds of the experiment; each has a dense network of its own.
    budgets: largest shares of the dense network's MACs.
    masks: number of masks that are drawn, scored and fine-tuned for each seed and budget.
    steps: numbers of gradient steps before scoring; each gives a level with and one without
      compensation.
  """

  seeds: tuple[int, ...] = (0, 1, 2)
  budgets: tuple[float, ...] = (0.25, 0.12)
  masks: int = 32
  steps: tuple[int, ...] = (0, 4, 16, 48)

  def __post_init__(self):
    """Refuses values with which no agreement can be measured."""
    _check_cells("fidelity", self.seeds, self.budgets)
    if self.masks < 10:
      raise InputError(f"fidelity masks is {self.masks}: an agreement needs 10 at least")
    if not self.steps or not all(type(k) is int and k >= 0 for k in self.steps):
      raise InputError(f"fidelity steps {self.steps} must be whole numbers, none negative")


def _check_cells(section: str, seeds: tuple[Any, ...], budgets: tuple[Any, ...]) -> None:
  """Refuses empty, repeated or invalid seeds and budgets."""
  if not seeds or not budgets:
    raise InputError(f"{section} seeds {seeds} and budgets {budgets}: name one of each at least")
  valid = all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)  # excludes bool
  if not valid or len(set(seeds)) < len(seeds):
    raise InputError(
      f"{section} seeds {seeds} must be distinct whole numbers, at least 0 and below 2**32"
    )
  is_share = lambda b: isinstance(b, (int, float)) and type(b) is not bool and 0 < b <= 1
  if not all(map(is_share, budgets)) or len(set(budgets)) < len(budgets):
    raise InputError(f"{section} budgets {budgets} must be distinct numbers above 0, at most 1")


def _check_variants(names: Iterable[Any]) -> None:
  """Refuses invalid names of variants, and names that other methods, phases or variants have.

  Names that would give the same directory count as the same name.
  """
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
