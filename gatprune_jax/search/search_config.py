"""Settings of a search."""

import dataclasses

from gatprune_jax.agent import LEARNERS, REWARDS, CriticConfig, DualConfig, PolicyConfig, PPOConfig
from gatprune_jax.channels import RIDGE
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import AdaptationConfig
from gatprune_jax.search.mdp import CONSTRAINTS, SCHEDULES


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Settings of the search for masks.

  Attributes:
    updates: number of PPO updates.
    samples: B, the number of masks sampled and scored in each update.
    schedule: "one_shot" (all channels in one step) or "layerwise" (one group per step).
    constraint: "lagrangian" (multipliers put a price on exceeding the budgets) or "projection"
      (every sample is changed until it just fits the budgets).
    keep_floor: smallest share of each group that is kept; at least one channel is always kept.
    allow_empty: whether a group that another path bypasses has no floor and may be removed whole.
    likelihood_weight: w in the score of a mask, accuracy + w * bounded mean log-likelihood.
    likelihood_bound: the log-likelihood of an image counts as at least minus this bound, nats.
    learner: "ppo" (proximal policy optimisation).
    self_competition: how scores become rewards: "none", "best", "rank" or "tanh".
    past_scores: number of scores of feasible masks remembered for self-competition.
    warm_start: half the range of the first logits, which follow the order of the best classical
      pruner.
    compensation_ridge: ridge penalty with which kernels take over what removed channels
      contributed, before a mask is scored and before its network is fine-tuned; see
      `measure_compensation`. It is a share of the mean square of a layer's inputs; 0 leaves the
      weights as they are.
    adaptation: gradient steps on each masked network before it is scored.
    calibration_images: training images for the batch-norm statistics of each mask, and for the
      compensation.
    calibration_batch: largest number of calibration images that are normalised together; see
      `recalibrate`.
    confirmation_share: share of the reward split that is held out as the confirmation split.
    refinement: number of masks scored at the end, which are exchanges of channels around the
      best masks; see `neighbours`. Each sampled mask that was scored before adds one more.
    elites: number of feasible masks, the best on the reward images, from which the shortlist is
      chosen.
    shortlist: number of masks returned for fine-tuning, the best on reward and confirmation images
      together.
    finalists: number of masks of the shortlist that are fine-tuned for all epochs. If there are
      more in the shortlist, all of them are fine-tuned for a quarter of the epochs first.
    chunk: masks that a device scores at once, which bounds memory; 0 chooses by `masks_at_once`.
    policy: the policy's encoder, a graph attention network.
    ppo: the update of the policy on the samples.
    dual: the controller of the multipliers; each budget has one multiplier.
    critic: the surrogate of the reward, fitted to the scored masks.
  """

  updates: int = 100
  samples: int = 32
  schedule: str = "one_shot"
  constraint: str = "lagrangian"
  keep_floor: float = 0.05
  allow_empty: bool = False
  likelihood_weight: float = 2.0
  likelihood_bound: float = 3.0
  learner: str = "ppo"
  self_competition: str = "best"
  past_scores: int = 256
  warm_start: float = 3.4
  compensation_ridge: float = RIDGE
  adaptation: AdaptationConfig = dataclasses.field(default_factory=AdaptationConfig)
  calibration_images: int = 256
  calibration_batch: int = 64
  confirmation_share: float = 0.25
  refinement: int = 192
  elites: int = 12
  shortlist: int = 8
  finalists: int = 2
  chunk: int = 0
  policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
  ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
  dual: DualConfig = dataclasses.field(default_factory=DualConfig)
  critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)

  @property
  def level(self) -> str:
    """The level of a score in words: what happens to the weights before a mask is scored."""
    weights = "compensated" if self.compensation_ridge else "as it is"
    return f"{weights}, {self.adaptation.steps} steps" if self.adaptation.steps else weights

  def __post_init__(self):
    """Raises InputError for values with which no search is possible."""
    for name in (
      "updates", "calibration_images", "calibration_batch", "elites", "shortlist", "finalists",
    ):  # fmt: skip
      if getattr(self, name) < 1:
        raise InputError(f"search {name} is {getattr(self, name)}: it must be at least 1")
    if self.samples < 2:
      raise InputError(f"search samples is {self.samples}: a leave-one-out baseline needs 2")
    if self.past_scores < self.samples:
      raise InputError(
        f"search past_scores is {self.past_scores}: it must hold at least one update's "
        f"{self.samples} samples"
      )
    for name in (
      "likelihood_weight",
      "likelihood_bound",
      "warm_start",
      "refinement",
      "chunk",
      "compensation_ridge",
    ):
      if getattr(self, name) < 0:
        raise InputError(f"search {name} is {getattr(self, name)}: it must not be negative")
    if not 0 < self.confirmation_share < 1:
      raise InputError(
        f"search confirmation_share is {self.confirmation_share}: it must be between 0 and 1"
      )
    for name, choices in (
      ("schedule", SCHEDULES),
      ("constraint", CONSTRAINTS),
      ("learner", LEARNERS),
      ("self_competition", REWARDS),
    ):
      if (value := getattr(self, name)) not in choices:
        raise InputError(f"search {name} {value!r} is unknown: choose from {', '.join(choices)}")
