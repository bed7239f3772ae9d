"""What is to be pruned: everything that all methods of one comparison start from."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import Constraints
from gatprune_jax.criteria import Classical, Evidence, classical_pruners, score_channels
from gatprune_jax.data import Dataset, Split, cut
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import Evaluator, adaptation_batches, check_calibration
from gatprune_jax.networks import CLASSIFICATION, Network, Task
from gatprune_jax.runtime.processes import from_first
from gatprune_jax.search.config import SearchConfig

# Saliency scores of the channels: baselines, and features of the agent.
DEFAULT_CRITERIA = ("random", "l1", "l2", "bn_scale", "fpgm", "taylor")
_CONTROL = "random"  # a baseline, but no feature
_EVIDENCE = 4096  # training examples that criteria look at; bounds the time of "taylor"


@dataclasses.dataclass(frozen=True, eq=False)
class PruningProblem:
  """A network, what it is for, its limits, its data, and what classical pruners make of it.

  Attributes:
    network: trained; it is not changed.
    task: its loss and score.
    constraints: the graph of its channels, budgets and floors.
    train: training examples, for the batch-norm statistics and steps before scoring.
    reward: examples that the weights were not trained on; every mask is scored on them.
    confirmation: more such examples, on which a new incumbent must win as well.
    pruners: classical masks within the budgets, at least one.
    saliency: {criterion: scores `[N]`}, the agent's features.
  """

  network: Network
  task: Task
  constraints: Constraints
  train: Split
  reward: Split
  confirmation: Split
  pruners: Sequence[Classical]
  saliency: dict[str, np.ndarray]
  # A problem that is made of this one by `dataclasses.replace` begins without any.
  _evaluators: dict[tuple, Evaluator] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  def evaluator(self, config: SearchConfig) -> Evaluator:
    """The evaluator with these settings; one for all who ask, so that it is compiled once."""
    settings = {
      name: getattr(config, name)
      for name in ("adaptation", "calibration_images", "calibration_batch", "samples", "chunk")
    }
    key = tuple(settings.values())
    if key not in self._evaluators:
      self._evaluators[key] = Evaluator(
        self.constraints.graph, self.network, self.task, self.train,
        num_images=self.reward.num, **settings,
      )  # fmt: skip
    return self._evaluators[key]


def make_problem(
  network: Network,
  constraints: Constraints,
  data: Dataset,
  *,
  task: Task = CLASSIFICATION,
  config: SearchConfig | None = None,
  criteria: Sequence[str] = DEFAULT_CRITERIA,
  seed: int = 0,
) -> PruningProblem:
  """Scores the channels by every criterion, and brings every classical pruner to the budgets.

  Args:
    network: trained.
    constraints: from `make_constraints`, of the network's graph.
    data: its train and reward parts.
    task: the network's loss and score.
    config: how the reward part is cut; None: as searches do by default.
    criteria: keys of `CRITERIA`.
    seed: of the cut, and of the "random" criterion.

  Raises:
    InputError: an unknown criterion, one that does not apply to the network, or data that are too
      few.
  """
  reward, confirmation = hold_out_confirmation(config or SearchConfig(), data.reward, seed)
  examples = data.train.first(_EVIDENCE)
  evidence = Evidence(
    constraints.graph, network, task, jnp.asarray(examples.x),
    jax.tree.map(jnp.asarray, examples.y), jax.random.key(seed),
  )  # fmt: skip
  scores = from_first(lambda: {name: score_channels(name, evidence) for name in criteria})
  pruners = classical_pruners(constraints, scores)
  saliency = {name: values for name, values in scores.items() if name != _CONTROL}
  return PruningProblem(
    network, task, constraints, data.train, reward, confirmation, pruners, saliency
  )


def hold_out_confirmation(config: SearchConfig, reward: Split, seed: int) -> tuple[Split, Split]:
  """Cuts the reward split in two: examples that score masks, and the confirmation split.

  Raises:
    InputError: where no example would score masks, or less than two would confirm them.
  """
  confirmation, scored = cut(reward, round(config.confirmation_share * reward.num), seed)
  if confirmation.num < 2:  # has no standard error
    raise InputError(
      f"confirmation_share {config.confirmation_share} of {reward.num} reward images is one image: "
      "make it so large that there are two at least, or give more reward images"
    )
  return scored, confirmation


def check_search(config: SearchConfig, data: Dataset, seed: int) -> None:
  """Refuses a search for which the data are too few, before there is a network.

  Raises:
    InputError: where training examples do not suffice for statistics or adaptation, or reward
      examples for the confirmation split.
  """
  check_calibration(config.calibration_images, data.train)
  adaptation_batches(config.adaptation, data.train)
  hold_out_confirmation(config, data.reward, seed)
