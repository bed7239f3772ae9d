"""How weights are trained: the settings of a training, and the optimiser that they define."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from gatprune_jax.data import Split, check_feed
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How weights are trained: SGD with Nesterov momentum, linear warm-up, cosine decay.

  Attributes:
    epochs: passes over the training split.
    batch_size: images per step; the last batch of an epoch is dropped where it is incomplete.
    learning_rate: learning rate at its peak, after the warm-up.
    warmup_epochs: epochs in which the learning rate rises from zero, linearly.
    momentum: momentum of Nesterov's method.
    weight_decay: L2 coefficient; it applies to arrays with two or more axes, so not to batch norm
      or biases.
    label_smoothing: share of the target that is spread evenly over the classes, in [0, 1).
    shift: largest random shift of an image, pixels.
    flip: whether images are mirrored left to right at random.
    crop_area: smallest share of a photograph's area that its random crop has, in (0, 1]; 1 takes
      centre crops. Images in memory are not cropped.
    mixup: parameter a of the Beta(a, a) distribution from which the weight of each batch is drawn;
      the rest of the weight is that of the same batch in reverse order (Zhang et al. 2018, arXiv
      1710.09412); 0 does not mix.
    average: decay of the exponential moving average of the variables that training returns, in
      [0, 1); 0 returns the last variables.
    distillation: weight in [0, 1] of imitating a teacher in the loss; the rest of the weight is
      that of the labels.
    temperature: temperature of the teacher's and the student's softmax when a teacher is imitated,
      positive.
  """

  epochs: int = 20
  batch_size: int = 64
  learning_rate: float = 0.05
  warmup_epochs: float = 0.5
  momentum: float = 0.9
  weight_decay: float = 5e-4
  label_smoothing: float = 0.0
  shift: int = 0
  flip: bool = False
  crop_area: float = 1.0
  mixup: float = 0.0
  average: float = 0.0
  distillation: float = 0.9
  temperature: float = 2.0

  def __post_init__(self):
    """Raises InputError for values with which nothing can be trained."""
    for name in ("epochs", "batch_size", "learning_rate", "temperature"):
      if getattr(self, name) <= 0:
        raise InputError(f"{name} is {getattr(self, name)}: it must be positive")
    for name in ("warmup_epochs", "weight_decay", "shift", "mixup"):
      if getattr(self, name) < 0:
        raise InputError(f"{name} is {getattr(self, name)}: it must not be negative")
    if self.warmup_epochs >= self.epochs:
      raise InputError(
        f"warmup_epochs is {self.warmup_epochs}: it must be less than the {self.epochs} epochs"
      )
    for name in ("momentum", "label_smoothing", "average"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f"{name} is {getattr(self, name)}: it must be at least 0 and below 1")
    if not 0 < self.crop_area <= 1:
      raise InputError(f"crop_area is {self.crop_area}: it must be above 0 and at most 1")
    if not 0 <= self.distillation <= 1:
      raise InputError(f"distillation is {self.distillation}: it must be a weight in [0, 1]")


def steps_per_epoch(recipe: Recipe, split: Split) -> int:
  """Returns the number of whole batches in the split.

  Raises:
    InputError: as `check_feed`; also where inputs that are to be shifted or flipped are no images,
      or where the shift is not smaller than the images.
  """
  if (recipe.shift or recipe.flip) and len(split.x.shape) != 4:
    raise InputError(
      f"shift is {recipe.shift} and flip {recipe.flip}, but inputs of shape "
      f"{split.x.shape[1:]} are no images [H, W, C]: set them to 0 and False"
    )
  if recipe.shift and recipe.shift >= (side := min(split.x.shape[1:3])):
    raise InputError(f"shift is {recipe.shift}: it must be below the images' {side} pixels")
  return check_feed(split, recipe.batch_size, recipe.crop_area)


def make_optimizer(recipe: Recipe, num_steps: int) -> optax.GradientTransformation:
  """Returns SGD with the recipe's learning rate schedule over `num_steps` steps."""
  warmup = int(recipe.warmup_epochs / recipe.epochs * num_steps)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0 if warmup else recipe.learning_rate, recipe.learning_rate, warmup, num_steps
  )
  decayed = lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
  return optax.chain(
    optax.add_decayed_weights(recipe.weight_decay, mask=decayed),
    optax.sgd(schedule, momentum=recipe.momentum, nesterov=True),
  )
