"""Gradient steps on a network's weights: the dense network, or many masked candidates at once."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import Aligned, ChannelGraph, align
from gatprune_jax.data import Split, random_flip, random_shift
from gatprune_jax.errors import InputError
from gatprune_jax.kernels.convolution.choice import candidate_convolution, candidate_width
from gatprune_jax.networks import Network, Task
from gatprune_jax.runs.health import is_finite, must_roll_back, refuse_if_all_skipped, roll_back
from gatprune_jax.runs.resume import Nowhere, Store
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import over_rows, over_shares
from gatprune_jax.training.placement import Carry, Placement
from gatprune_jax.training.recipe import Recipe, make_optimizer, steps_per_epoch
from gatprune_jax.training.step import Batch, init_train_state, train_step

Teacher = Callable[[jax.Array], Any]  # inputs [B, ...] -> outputs of the student's form
# (epoch from 1, its mean loss and score, the variables so far)
OnEpoch = Callable[[int, dict[str, float], Any], None]


def train(
  network: Network,
  task: Task,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Teacher | None = None,
  store: Store | None = None,
) -> Any:
  """Trains one network from its variables; returns the new ones.

  The loop over steps is Python's: a convolution's weight gradient is much slower inside a
  compiled loop on CPU. Every device works on its share of each batch, and statistics are those of
  the whole batch.

  Args:
    network: what to train.
    task: its loss, and the score that is told.
    split: training examples.
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
  step = lambda optimizer: functools.partial(train_step, network, task, optimizer, recipe)
  one = lambda init: init
  store, placement = store or Nowhere(), Placement(None)
  return _loop(
    network, task, step, one, network.variables, split, recipe, key, on_epoch, teacher, store,
    placement,
  )  # fmt: skip


def align_candidates(graph: ChannelGraph, network: Network, masks: np.ndarray, x: Any) -> Aligned:
  """Networks of several masks at one shape, in the form that the backend trains fast; see `align`.

  Args:
    graph: the network's channels.
    network: the dense one; its train function is aligned.
    masks: `[C, N]`, 1 = keep.
    x: a batch of inputs, or its `jax.ShapeDtypeStruct`.
  """
  conv = candidate_convolution()
  return align(
    graph, network.train_fn, masks, network.variables, x, conv=conv, width=candidate_width
  )


def aligned_network(network: Network, aligned: Aligned, index: Any) -> Network:
  """One of the aligned networks, in train mode, as a network."""
  return dataclasses.replace(network, train_fn=functools.partial(aligned.apply, index))


def train_candidates(
  graph: ChannelGraph,
  network: Network,
  task: Task,
  masks: jax.Array,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Teacher | None = None,
  store: Store | None = None,
) -> Any:
  """Trains one copy of a network under each mask, side by side, on the same batches.

  Equal to training each alone as a `masked_network` with the same key. The networks are aligned
  (see `align`): each computes about as many channels as the widest keeps. Every device trains its
  share of them.

  Args:
    graph: the network's channels.
    network: the dense one; every candidate starts from its variables.
    task: its loss, and the score that is told.
    masks: `[C, N]`, 1 = keep.
    split: training examples.
    recipe: how.
    key: PRNG key of data order and augmentation, shared.
    on_epoch: as in `train`, with means over the candidates.
    teacher: what to imitate where the recipe distils.
    store: as in `train`.

  Returns:
    The dense variables of each `[C, ...]`, on the host; what a network did not compute, because its
    mask removes it, is as it was at the start.

  Raises:
    InputError, Diverged, Preempted: as `train`.
  """
  dtype = jnp.asarray(split.x[:1]).dtype
  inputs = jax.ShapeDtypeStruct((recipe.batch_size, *split.x.shape[1:]), dtype)
  aligned = align_candidates(graph, network, np.asarray(masks), inputs)

  def step(optimizer):
    def one(state, index, batch):
      candidate = aligned_network(network, aligned, index)
      return train_step(candidate, task, optimizer, recipe, state, batch)

    def side_by_side(own, batch):
      return over_rows(lambda both: one(*both, batch), own)

    indices = mesh.padded_rows(len(masks))
    shared = over_shares(side_by_side, len(masks))
    return lambda state, batch: shared((state, indices), batch)

  dense = lambda stacked: aligned.uncut(stacked, network.variables)
  on_dense = lambda epoch, metrics, stacked: on_epoch(epoch, metrics, dense(stacked))
  store, placement = store or Nowhere(), Placement(len(masks))
  stacked = aligned.cut(network.variables)
  trained = _loop(
    network, task, step, jax.vmap, stacked, split, recipe, key, on_dense, teacher, store, placement
  )
  return dense(trained)


def _loop(
  network: Network,
  task: Task,
  make_step,
  over_networks,
  variables: Any,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch,
  teacher: Teacher | None,
  store: Store,
  placement: Placement,
) -> Any:
  """The steps of `train` and `train_candidates`."""
  per_epoch = steps_per_epoch(recipe, split)
  if recipe.distillation > 0 and teacher is None:
    raise InputError(f"distillation is {recipe.distillation}, but no teacher is given: set it to 0")
  total = per_epoch * recipe.epochs
  optimizer = make_optimizer(recipe, total)
  step = make_step(optimizer)

  def step_on(carry, x, y, key, index):
    x, y = placement.batch((x, y), recipe.batch_size)
    x = random_shift(key, x, recipe.shift)
    x = random_flip(jax.random.fold_in(key, 1), x) if recipe.flip else x
    share = None
    if recipe.mixup:
      share = jax.random.beta(jax.random.fold_in(key, 2), recipe.mixup, recipe.mixup)
      x = share * x + (1 - share) * x[::-1]
    outputs = teacher(x) if teacher is not None else ()
    state, metrics = step(carry.state, Batch(x, y, outputs, share))
    put = lambda rows, row: rows.at[index].set(row)
    history = jax.tree.map(put, carry.history, metrics)
    return Carry(state, history), state.health.in_a_row.max()

  @jax.jit
  def start(variables):
    state = over_networks(functools.partial(init_train_state, network, optimizer))(variables)
    empty = lambda: jnp.zeros((per_epoch, *state.health.rate.shape))
    # Copies: the steps donate them, and the caller keeps its own.
    return jax.tree.map(jnp.array, Carry(state, {"loss": empty(), task.metric: empty()}))

  carry = start(variables)
  shardings = (placement.shardings(), mesh.everywhere())
  step_on = compilation.jit(step_on, donate_argnums=0, out_shardings=shardings)
  feed = placement.feed(split, recipe)

  done, carry = store.restore(carry) or (0, carry)
  in_a_row = carry.state.health.in_a_row
  carry = placement.put(carry)
  while True:
    if done and done % per_epoch == 0:
      means = {name: float(np.mean(rows)) for name, rows in carry.history.items()}
      on_epoch(done // per_epoch, means, placement.fetch_state(carry.state.average))
    if done == total:
      finite = placement.fetch_state(carry.state.health.finite)
      refuse_if_all_skipped("training", total, finite)
      return placement.fetch_state(carry.state.average)
    epoch, first = divmod(done, per_epoch)
    epoch_key = jax.random.fold_in(key, epoch)
    for index, (x, y) in enumerate(feed(epoch_key, first), first):
      # Of the step before: this one is not waited for.
      if must_roll_back(in_a_row):
        carry = placement.fetch(carry)
        done, carry, health = roll_back(
          "training", done, carry, lambda saved: saved.state.health, store
        )
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
