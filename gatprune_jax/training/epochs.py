"""Training for some epochs, of one network or of many at once, in a loop that can be resumed."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.data import Feed, Split, random_flip, random_shift
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network, Task
from gatprune_jax.runs.checkpointer import Checkpointer
from gatprune_jax.runs.loop import Steps, run
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.training.placement import Carry, Placement
from gatprune_jax.training.recipe import Recipe, make_optimizer, steps_per_epoch
from gatprune_jax.training.step import Batch, init_train_state

# Called with the epoch, counted from 1, its mean loss and score, and the variables after it.
OnEpoch = Callable[[int, dict[str, float], Any], None]


@dataclasses.dataclass(frozen=True)
class Training:
  """A training: the networks, their data and their recipe; `run` carries it out.

  Attributes:
    network: the functions to train, and which of the variables train.
    task: gives the loss, and the score that is logged.
    split: training examples.
    recipe: how the network is trained.
    key: PRNG key of data order and augmentation.
    on_epoch: called after each epoch. Where training goes on from a checkpoint that was saved at
      the end of an epoch, it is called for that epoch again.
    teacher: the network whose outputs are imitated where the recipe distils; it is not trained.
    placement: on which devices the arrays are.
  """

  network: Network
  task: Task
  split: Split
  recipe: Recipe
  key: jax.Array
  on_epoch: OnEpoch
  teacher: Network | None
  placement: Placement

  def run(
    self, make_step: Callable, over_networks: Callable, variables: Any, checkpointer: Checkpointer
  ) -> Any:
    """Trains from the given or the last saved variables; returns their moving average.

    The loop over steps is a Python loop, because on CPU a convolution's weight gradient is much
    slower inside a compiled loop.

    Args:
      make_step: called with the optimiser; returns the function (state, batch) -> (state, metrics)
        that takes one step of all networks at once.
      over_networks: maps a function of one network's variables over all networks: `jax.vmap`, or
        the identity for a single network.
      variables: of the single network, or of all networks, stacked `[C, ...]`.
      checkpointer: saves the state, and restores the state that an earlier process saved.

    Returns:
      The averaged variables, in the same form.

    Raises:
      InputError, Diverged, Preempted: see `train`.
    """
    recipe, placement = self.recipe, self.placement
    if recipe.distillation > 0 and self.teacher is None:
      raise InputError(
        f"distillation is {recipe.distillation}, but no teacher is given: set it to 0"
      )
    per_epoch = steps_per_epoch(recipe, self.split)
    optimizer = make_optimizer(recipe, per_epoch * recipe.epochs)
    # The teacher's variables are an argument of the compiled step, because as constants of the
    # program they would make it large.
    taught = mesh.replicate(None if self.teacher is None else self.teacher.variables)
    step_on = compilation.jit(
      functools.partial(self._step_on, make_step(optimizer)), donate_argnums=0,
      out_shardings=(placement.shardings(), mesh.everywhere()),
    )  # fmt: skip

    @jax.jit
    def start(variables):
      state = over_networks(functools.partial(init_train_state, self.network, optimizer))(variables)
      empty = lambda: jnp.zeros((per_epoch, *state.health.rate.shape))
      # The arrays are copied, because the steps donate their state and the caller keeps its own.
      return jax.tree.map(jnp.array, Carry(state, {"loss": empty(), self.task.metric: empty()}))

    steps = Steps(
      what="training",
      finished=lambda done, _: done == per_epoch * recipe.epochs,
      inputs=functools.partial(self._batches, placement.feed(self.split, recipe), per_epoch),
      step=lambda carry, batch: step_on(carry, taught, *batch),
      health=lambda carry: placement.fetch_state(carry.state.health),
      with_health=lambda carry, health: carry.replace(state=carry.state.replace(health=health)),
      reached=functools.partial(self._tell, per_epoch),
      fetch=placement.fetch,
      put=placement.put,
    )
    carry = run(steps, start(variables), checkpointer)
    return placement.fetch_state(carry.state.average)

  def _step_on(
    self,
    step: Callable,
    carry: Carry,
    taught: Any,
    x: Any,
    y: Any,
    key: jax.Array,
    index: jax.Array,
  ) -> tuple[Carry, jax.Array]:
    """Augments one batch of the feed and takes one step on it.

    Args:
      step: from `make_step`, see `run`.
      carry: the state of all networks, and the metrics of this epoch.
      taught: the teacher's variables; None without a teacher.
      x: inputs from the feed.
      y: targets from the feed.
      key: PRNG key of the augmentation.
      index: the step's place in its epoch.

    Returns:
      The next carry, and how many steps in a row were skipped: for several networks, the largest of
      their numbers.
    """
    recipe = self.recipe
    x, y = self.placement.batch((x, y), recipe.batch_size)
    x = random_shift(key, x, recipe.shift)
    x = random_flip(jax.random.fold_in(key, 1), x) if recipe.flip else x
    share = None
    if recipe.mixup:
      share = jax.random.beta(jax.random.fold_in(key, 2), recipe.mixup, recipe.mixup)
      x = share * x + (1 - share) * x[::-1]
    outputs = () if self.teacher is None else self.teacher.eval_fn(taught, x)
    state, metrics = step(carry.state, Batch(x, y, outputs, share))
    put = lambda rows, row: rows.at[index].set(row)
    history = jax.tree.map(put, carry.history, metrics)
    return Carry(state, history), state.health.in_a_row.max()

  def _batches(
    self, feed: Feed, per_epoch: int, done: int
  ) -> Iterator[tuple[Any, Any, jax.Array, int]]:
    """Yields inputs, targets, PRNG key and index of each step that is left in an epoch."""
    epoch, first = divmod(done, per_epoch)
    key = jax.random.fold_in(self.key, epoch)
    for index, (x, y) in enumerate(feed(key, first), first):
      yield x, y, jax.random.fold_in(key, index), index

  def _tell(self, per_epoch: int, done: int, carry: Carry) -> None:
    """Calls `on_epoch` if the steps done so far end an epoch."""
    if done and done % per_epoch == 0:
      means = {name: float(np.mean(rows)) for name, rows in carry.history.items()}
      self.on_epoch(done // per_epoch, means, self.placement.fetch_state(carry.state.average))
