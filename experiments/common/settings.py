"""Frozen settings of a whole experiment; every field is checked when the settings are made."""

import dataclasses

from ml_collections import ConfigDict

from experiments.common.config_tree import (
  MIXED,
  as_config,
  as_tree,
  changed,
  made,
  refuse_infinite,
)
from experiments.common.sections import (
  CompareConfig,
  DenseConfig,
  FidelityConfig,
  LatencyConfig,
  ModelConfig,
)
from gatprune_jax import InputError
from gatprune_jax.channels import RESOURCES, Deployment
from gatprune_jax.criteria import check_saliency
from gatprune_jax.data import DataConfig
from gatprune_jax.pruning import check_rounds
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.search import DEFAULT_CRITERIA, SearchConfig
from gatprune_jax.training import Recipe


@dataclasses.dataclass(frozen=True)
class Settings(DataConfig):
  """Settings of a whole experiment; a config file has the same sections and fields.

  Attributes:
    seed: seed of the cut of the data, the initial weights, the order of images and the search.
    model: which network is pruned.
    dense: the trained network that pruning starts from.
    budgets: largest cost in each resource: a share of the dense network's, above 0 and at most 1,
      or a number with a unit, such as 300k, 500KB or 5ms; 1 does not constrain the resource, None
      leaves it out.
    deployment: how the pruned network is going to be run.
    latency: times of layers, for a budget for latency.
    criteria: saliency scores, which are baselines and also features of the agent; "random" is only
      a baseline.
    search: settings of the agent's search; the other searches use those that apply to them.
    finetune: training of the pruned networks, the same for every method.
    finetune_side_by_side: True fine-tunes all networks in one step, which is compiled once and in
      which each network is as wide as the widest; False fine-tunes compact networks one after the
      other, which is faster on a CPU if training them takes longer than compiling them.
    rounds: number of rounds of experiments.prune. Each prunes an equal share of the way in the
      logarithm of the costs and fine-tunes by the whole recipe, and the next one starts from its
      network.
    compare: settings of experiments.compare alone, which uses the seeds and budgets in this section
      instead of seed and budgets.
    fidelity: settings of experiments.fidelity alone.
    checkpoints: how often a run is saved, so that it can continue after an interruption.
  """

  seed: int = 0
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  dense: DenseConfig = dataclasses.field(default_factory=DenseConfig)
  budgets: dict[str, float | str | None] = dataclasses.field(
    default_factory=lambda: {**dict.fromkeys(sorted(RESOURCES)), "macs": 0.5, "params": 1.0},
    metadata=MIXED,
  )
  deployment: Deployment = dataclasses.field(default_factory=Deployment)
  latency: LatencyConfig = dataclasses.field(default_factory=LatencyConfig)
  criteria: tuple[str, ...] = DEFAULT_CRITERIA
  search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
  finetune: Recipe = dataclasses.field(default_factory=Recipe)
  finetune_side_by_side: bool = True
  rounds: int = 1
  compare: CompareConfig = dataclasses.field(default_factory=CompareConfig)
  fidelity: FidelityConfig = dataclasses.field(default_factory=FidelityConfig)
  checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

  def __post_init__(self):
    """Refuses values that no experiment can use."""
    super().__post_init__()
    if not 0 <= self.seed < 2**32:
      raise InputError(f"seed is {self.seed}: it must be at least 0 and below 2**32")
    if self.dense.trained and not (self.dense.weights or self.model.factory):
      raise InputError(
        "dense.trained is True, but there are no trained variables: give dense.weights or "
        "model.factory, or set it to False"
      )
    check_saliency(self.criteria)
    check_rounds(self.rounds, self.search.allow_empty)
    for name in self.compare.variants:
      self.variant(name)

  @property
  def limits(self) -> dict[str, float | str]:
    """The budgets that are not None, {resource: share of the dense network's cost, or a cost}."""
    return {name: limit for name, limit in self.budgets.items() if limit is not None}

  def variant(self, name: str) -> SearchConfig:
    """Returns the settings of the agent's search in one of the variants that are compared.

    Raises:
      InputError: if the variant changes a field that a search lacks, or to an unusable value.
    """
    changes = self.compare.variants[name]
    tree = changed(as_tree(self.search), changes, f"compare variant {name!r}")
    return made(SearchConfig, tree, "config.search")


def default_config() -> ConfigDict:
  """Returns the default settings, which a config file changes where its experiment differs."""
  return as_config(Settings())


def make_settings(config: ConfigDict) -> Settings:
  """Makes the settings from what the config file and the command line have set.

  Raises:
    InputError: if a field is unknown, or a value is one that no experiment can use.
  """
  tree = config.to_dict()
  refuse_infinite(tree, "config")
  return made(Settings, tree, "config")
