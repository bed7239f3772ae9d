"""A whole experiment as frozen settings: every field is checked here, before anything is done."""

import dataclasses

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config, as_tree, changed, made, refuse_infinite
from experiments.common.sections import CompareConfig, DenseConfig, ModelConfig
from gatprune_jax import InputError
from gatprune_jax.channels import RESOURCES
from gatprune_jax.criteria import check_saliency
from gatprune_jax.data import DataConfig
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.search import DEFAULT_CRITERIA, SearchConfig
from gatprune_jax.training import Recipe


@dataclasses.dataclass(frozen=True)
class Settings(DataConfig):
  """A whole experiment; its tree of fields is that of a config file.

  Attributes:
    seed: of the data's cuts, initial weights, order of images and search.
    model: which network is pruned.
    dense: the trained network that pruning starts from.
    budgets: largest share of the dense network's cost, by resource, above 0; 1 does not constrain,
      None does not even count.
    criteria: saliency scores: baselines, and features of the agent; "random" is only a baseline.
    search: how the agent searches; those that it is compared with use what applies to them.
    finetune: training of the pruned networks, the same for every method.
    finetune_side_by_side: True fine-tunes all networks in one step, compiled once, each as wide as
      the widest; False fine-tunes compact networks one after the other, which pays on a CPU where
      training them takes longer than compiling them.
    compare: of experiments.compare only, which takes its seeds and budgets instead of the above.
    checkpoints: how often a run is saved, to go on from there after an interruption.
  """

  seed: int = 0
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  dense: DenseConfig = dataclasses.field(default_factory=DenseConfig)
  budgets: dict[str, float | None] = dataclasses.field(
    default_factory=lambda: {**dict.fromkeys(sorted(RESOURCES)), "macs": 0.5, "params": 1.0}
  )
  criteria: tuple[str, ...] = DEFAULT_CRITERIA
  search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
  finetune: Recipe = dataclasses.field(default_factory=Recipe)
  finetune_side_by_side: bool = True
  compare: CompareConfig = dataclasses.field(default_factory=CompareConfig)
  checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

  def __post_init__(self):
    """Refuses what no experiment can use."""
    super().__post_init__()
    if not 0 <= self.seed < 2**32:
      raise InputError(f"seed is {self.seed}: it must be at least 0 and below 2**32")
    if self.dense.trained and not (self.dense.weights or self.model.factory):
      raise InputError(
        "dense.trained is True, but there are no trained variables: give dense.weights or "
        "model.factory, or set it to False"
      )
    check_saliency(self.criteria)
    for name in self.compare.variants:
      self.variant(name)

  @property
  def limits(self) -> dict[str, float]:
    """The budgets of the resources that count."""
    return {name: limit for name, limit in self.budgets.items() if limit is not None}

  def variant(self, name: str) -> SearchConfig:
    """The agent's search in one of the variants that are compared.

    Raises:
      InputError: where it changes what a search does not have, or to what no search can use.
    """
    changes = self.compare.variants[name]
    tree = changed(as_tree(self.search), changes, f"compare variant {name!r}")
    return made(SearchConfig, tree, "config.search")


def default_config() -> ConfigDict:
  """What a config file starts from, and changes where its experiment differs."""
  return as_config(Settings())


def make_settings(config: ConfigDict) -> Settings:
  """The settings that a config file and the command line have made.

  Raises:
    InputError: a value that no experiment can use.
  """
  tree = config.to_dict()
  refuse_infinite(tree, "config")
  return made(Settings, tree, "config")
