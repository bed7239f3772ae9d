"""Gradient steps on a network's weights: the dense network, or many masked candidates at once."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gatprune_jax import mesh
from gatprune_jax.channels import ChannelGraph, masked
from gatprune_jax.data import Feed, Split, check_feed, make_feed, random_flip, random_shift
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation.batching import over_candidates
from gatprune_jax.evaluation.convolution import candidate_convolution
from gatprune_jax.evaluation.recalibration import TrainFunction
from gatprune_jax.evaluation.scoring import score_logits
from gatprune_jax.health import (
  Health,
  all_finite,
  healthy,
  is_finite,
  must_roll_back,
  roll_back,
  take_if_finite,
)
from gatprune_jax.resume import Nowhere, Store

Teacher = Callable[[jax.Array], jax.Array]  # images [B, ...] -> logits [B, classes]
# (epoch from 1, its mean loss and accuracy, the variables so far)
OnEpoch = Callable[[int, dict[str, float], Any], None]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How weights are trained: SGD with Nesterov momentum, linear warm-up, cosine decay.

  Attributes:
    epochs: passes over the training split.
    batch_size: images a step; a last incomplete batch is dropped.
    learning_rate: at the peak.
    warmup_epochs: of linear increase from zero.
    momentum: of Nesterov's method.
    weight_decay: L2 coefficient, on arrays with two or more axes (not on batch norm or biases).
    label_smoothing: share of the target spread evenly over the classes, in [0, 1).
    shift: largest random shift of an image, pixels.
    flip: whether images are mirrored left to right at random.
    crop_area: smallest share of a photograph's area that its random crop has, in (0, 1]; 1 takes
      centre crops. Images in memory are not cropped.
    mixup: a of the Beta(a, a) from which a batch draws its share of itself, the rest being the same
      batch in reverse order (Zhang et al. 2018, arXiv 1710.09412); 0 does not mix.
    average: decay of the exponential moving average of the variables that training returns, in
      [0, 1); 0 returns the last ones.
    distillation: weight in [0, 1] of imitating a teacher, the rest being that of the labels.
    temperature: of the teacher's and the student's softmax in that term, positive.
  """

  epochs: int
  batch_size: int
  learning_rate: float
  warmup_epochs: float
  momentum: float
  weight_decay: float
  label_smoothing: float
  shift: int
  flip: bool
  crop_area: float
  mixup: float
  average: float
  distillation: float
  temperature: float

  def __post_init__(self):
    """Refuses values that cannot train."""
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


class Batch(NamedTuple):
  """What one gradient step learns from."""

  x: jax.Array  # images [B, ...], mixed already
  y: jax.Array  # labels [B]
  teacher_logits: jax.Array  # [B, classes]; not read where the recipe does not distil
  share: jax.Array | None = None  # of y in the target, the rest is y in reverse order; None: all


@flax.struct.dataclass
class TrainState:
  """What one gradient step carries to the next."""

  variables: Any
  average: Any  # of the variables; the variables themselves where the recipe does not average
  opt_state: Any
  health: Health


def init_train_state(optimizer: optax.GradientTransformation, variables: Any) -> TrainState:
  """The state before the first step; the average starts at the variables."""
  return TrainState(variables, variables, optimizer.init(variables["params"]), healthy())


def steps_per_epoch(recipe: Recipe, split: Split) -> int:
  """Whole batches in the split.

  Raises:
    InputError: as `check_feed`, or where images would be shifted out of sight.
  """
  if recipe.shift >= (side := min(split.x.shape[1:3])):
    raise InputError(f"shift is {recipe.shift}: it must be below the images' {side} pixels")
  return check_feed(split, recipe.batch_size, recipe.crop_area)


def make_optimizer(recipe: Recipe, num_steps: int) -> optax.GradientTransformation:
  """SGD with the recipe's schedule over `num_steps` steps."""
  warmup = int(recipe.warmup_epochs / recipe.epochs * num_steps)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0 if warmup else recipe.learning_rate, recipe.learning_rate, warmup, num_steps
  )
  decayed = lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
  return optax.chain(
    optax.add_decayed_weights(recipe.weight_decay, mask=decayed),
    optax.sgd(schedule, momentum=recipe.momentum, nesterov=True),
  )


def training_loss(recipe: Recipe, logits: jax.Array, batch: Batch) -> jax.Array:
  """(1 - w) CE(t, p_1) + w T^2 CE(q_T, p_T), mean over the batch.

  p_T and q_T are the softmax of student and teacher at temperature T; T^2 keeps the scale of the
  gradient (Hinton et al. 2015, arXiv 1503.02531).

  Args:
    recipe: w is `distillation`, T is `temperature`.
    logits: of the student `[B, classes]`.
    batch: its labels, smoothed as the recipe says and mixed in its share, are the targets t.
  """
  targets = optax.smooth_labels(jax.nn.one_hot(batch.y, logits.shape[-1]), recipe.label_smoothing)
  if batch.share is not None:  # on several devices, turning round is communication
    targets = batch.share * targets + (1 - batch.share) * targets[::-1]
  loss = optax.softmax_cross_entropy(logits, targets).mean()
  if recipe.distillation == 0:
    return loss
  temperature = recipe.temperature
  soft = jax.nn.softmax(batch.teacher_logits / temperature)
  imitation = optax.softmax_cross_entropy(logits / temperature, soft).mean()
  return (1 - recipe.distillation) * loss + recipe.distillation * temperature**2 * imitation


def train_step(
  train_fn: TrainFunction,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  state: TrainState,
  batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One gradient step on one batch; pure and unbatched over candidates.

  Where the loss, its gradient or an updated variable is not finite, the state stays as it was, but
  for the count of such steps.

  Args:
    train_fn: `(variables, x) -> (logits, updated collections)`.
    optimizer: acts on the "params" collection.
    recipe: the loss.
    state: weights and optimiser state.
    batch: what to learn from.

  Returns:
    The next state, and scalars `loss` and `accuracy` of the batch.
  """

  def loss_fn(params):
    logits, updated = train_fn({**state.variables, "params": params}, batch.x)
    return training_loss(recipe, logits, batch), (logits, updated)

  params = state.variables["params"]
  (loss, (logits, updated)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  updates, opt_state = optimizer.update(grads, state.opt_state, params)
  updates = jax.tree.map(lambda leaf: state.health.rate * leaf, updates)
  variables = {**state.variables, **updated, "params": optax.apply_updates(params, updates)}
  d = recipe.average
  average = jax.tree.map(lambda old, new: d * old + (1 - d) * new, state.average, variables)
  metrics = {"loss": loss, "accuracy": score_logits(logits, batch.y).correct.mean()}
  finite = all_finite((loss, grads, variables))
  new = TrainState(variables, average, opt_state, state.health)
  return take_if_finite(finite, new, state), metrics


def train(
  train_fn: TrainFunction,
  variables: Any,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Teacher | None = None,
  store: Store | None = None,
) -> Any:
  """Trains one network; returns its variables.

  The loop over steps is Python's: a convolution's weight gradient is much slower inside a
  compiled loop on CPU. Every device works on its share of each batch, and statistics are those of
  the whole batch.

  Args:
    train_fn: `(variables, x) -> (logits, updated collections)`.
    variables: where to start.
    split: training images and labels.
    recipe: how.
    key: PRNG key of data order and augmentation.
    on_epoch: called after each epoch; again after the last one whose steps a store holds.
    teacher: what to imitate where the recipe distils.
    store: where the state is saved after gradient steps, and was saved; None saves nothing.

  Raises:
    InputError: where the split is smaller than one batch, or the recipe distils from no teacher.
    Diverged: where steps are not finite, again and again.
    Preempted: where the store was asked to stop.
  """
  step = lambda optimizer: functools.partial(train_step, train_fn, optimizer, recipe)
  start = lambda init: init(variables)
  store = store or Nowhere()
  return _loop(step, start, split, recipe, key, on_epoch, teacher, store, _Placement(None))


def train_candidates(
  graph: ChannelGraph,
  train_fn: TrainFunction,
  variables: Any,
  masks: jax.Array,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Teacher | None = None,
  store: Store | None = None,
) -> Any:
  """Trains one copy of a network under each mask, side by side, on the same batches.

  Equal to training each alone with `masked(graph, train_fn)` and the same key. Every device trains
  its share of them.

  Args:
    graph: the network's channels.
    train_fn: `(variables, x) -> (logits, updated collections)`.
    variables: where every candidate starts.
    masks: `[C, N]`, 1 = keep.
    split: training images and labels.
    recipe: how.
    key: PRNG key of data order and augmentation, shared.
    on_epoch: as in `train`, with means over the candidates.
    teacher: what to imitate where the recipe distils.
    store: as in `train`.

  Returns:
    The variables with a leading axis `[C, ...]`, on the host where there are several devices.

  Raises:
    InputError, Diverged, Preempted: as `train`.
  """
  masked_fn = masked(graph, train_fn, conv=candidate_convolution())

  def step(optimizer):
    def one(state, mask, batch):
      masked_train = lambda v, x: masked_fn(v, mask, x)
      return train_step(masked_train, optimizer, recipe, state, batch)

    def side_by_side(own, batch):
      state, metrics = over_candidates(lambda both: one(*both, batch), own)
      return state, metrics

    rows = np.asarray(masks)[mesh.padded_rows(len(masks))]
    shared = mesh.over_shares(side_by_side, len(masks))
    return lambda state, batch: shared((state, rows), batch)

  def start(init):
    stacked = jax.tree.map(lambda a: jnp.repeat(a[None], len(masks), axis=0), variables)
    return jax.vmap(init)(stacked)

  store, placement = store or Nowhere(), _Placement(len(masks))
  return _loop(step, start, split, recipe, key, on_epoch, teacher, store, placement)


@flax.struct.dataclass
class _Carry:
  """What is saved of a training: the state, and what is known of the steps of this epoch."""

  state: TrainState
  history: dict[str, jax.Array]  # {metric: [steps per epoch, ...]}


@dataclasses.dataclass(frozen=True)
class _Placement:
  """On which devices a training's arrays are.

  Attributes:
    candidates: that are shared out, each with the whole batch; None: one network on every device,
      and the batch shared out.
  """

  candidates: int | None

  def shardings(self) -> _Carry:
    """Of what a step returns."""
    state = mesh.everywhere() if self.candidates is None else mesh.shares()
    return _Carry(state, mesh.everywhere())

  def put(self, carry: _Carry) -> _Carry:
    """What one device has, on all."""
    place = mesh.replicate if self.candidates is None else mesh.share_out
    return _Carry(place(carry.state), mesh.replicate(carry.history))

  def fetch(self, carry: _Carry) -> _Carry:
    """What one device would have."""
    return _Carry(self.fetch_state(carry.state), carry.history)

  def fetch_state(self, tree: Any) -> Any:
    """The same for a part of the state."""
    if self.candidates is None or mesh.num_devices() == 1:
      return mesh.local(tree)
    return jax.tree.map(lambda leaf: leaf[: self.candidates], mesh.to_host(tree))

  def feed(self, split: Split, recipe: Recipe) -> Feed:
    """Batches as steps expect them."""
    return make_feed(split, recipe.batch_size, recipe.crop_area, shared=self.candidates is None)

  def batch(self, x: jax.Array, size: int) -> jax.Array:
    """An array of the feed, within a step."""
    return x if self.candidates is not None else mesh.as_batch(x, size)


def _loop(
  make_step,
  start,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch,
  teacher: Teacher | None,
  store: Store,
  placement: _Placement,
) -> Any:
  """The steps of `train` and `train_candidates`."""
  per_epoch = steps_per_epoch(recipe, split)
  if recipe.distillation > 0 and teacher is None:
    raise InputError(f"distillation is {recipe.distillation}, but no teacher is given: set it to 0")
  total = per_epoch * recipe.epochs
  optimizer = make_optimizer(recipe, total)
  step = make_step(optimizer)

  def step_on(carry, x, y, key, index):
    x, y = (placement.batch(rows, recipe.batch_size) for rows in (x, y))
    x = random_shift(key, x, recipe.shift)
    x = random_flip(jax.random.fold_in(key, 1), x) if recipe.flip else x
    share = None
    if recipe.mixup:
      share = jax.random.beta(jax.random.fold_in(key, 2), recipe.mixup, recipe.mixup)
      x = share * x + (1 - share) * x[::-1]
    teacher_logits = teacher(x) if teacher is not None else jnp.zeros((len(y), 1))
    state, metrics = step(carry.state, Batch(x, y, teacher_logits, share))
    put = lambda rows, row: rows.at[index].set(row)
    history = jax.tree.map(put, carry.history, metrics)
    return _Carry(state, history), state.health.in_a_row.max()

  state = start(functools.partial(init_train_state, optimizer))
  empty = lambda: jnp.zeros((per_epoch, *state.health.rate.shape))
  # The steps donate it, and the caller keeps its own.
  carry = jax.tree.map(jnp.array, _Carry(state, {"loss": empty(), "accuracy": empty()}))
  shardings = (placement.shardings(), mesh.everywhere())
  step_on = jax.jit(step_on, donate_argnums=0, out_shardings=shardings)
  feed = placement.feed(split, recipe)

  done, carry = store.restore(carry) or (0, carry)
  in_a_row = carry.state.health.in_a_row
  carry = placement.put(carry)
  while True:
    if done and done % per_epoch == 0:
      means = {name: float(np.mean(rows)) for name, rows in carry.history.items()}
      on_epoch(done // per_epoch, means, placement.fetch_state(carry.state.average))
    if done == total:
      return placement.fetch_state(carry.state.average)
    epoch, first = divmod(done, per_epoch)
    epoch_key = jax.random.fold_in(key, epoch)
    for index, (x, y) in enumerate(feed(epoch_key, first), first):
      # Of the step before: this one is not waited for.
      if must_roll_back(in_a_row):
        carry = placement.fetch(carry)
        done, carry, health = roll_back("training", done, carry.state.health, carry, store)
        carry = carry.replace(state=carry.state.replace(health=health))
        in_a_row = health.in_a_row
        store.save(done, carry)
        carry = placement.put(carry)
        break
      carry, in_a_row = step_on(carry, x, y, jax.random.fold_in(epoch_key, index), index)
      done += 1
      now = functools.partial(placement.fetch, carry)
      store.offer(done, now, functools.partial(is_finite, in_a_row))
    if done == total:
      store.finish(done, functools.partial(placement.fetch, carry))
