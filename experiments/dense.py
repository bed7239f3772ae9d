"""The dense network that both mains begin with: made, trained or restored."""

from collections.abc import Callable
import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.journal import Journal, place_of
from experiments.settings import Settings
from gatprune_jax import models
from gatprune_jax import workdir as runs
from gatprune_jax.channels import check_finite
from gatprune_jax.checkpoint import restore_variables, save_variables, set_aside_if_damaged
from gatprune_jax.data import Dataset, Split, load_dataset
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import (
  Recipe,
  TrainFunction,
  score_logits,
  steps_per_epoch,
  train,
)
from gatprune_jax.processes import arrays_from_first, from_first, is_first


class Network(NamedTuple):
  """A network as functions of its variables."""

  name: str
  eval_fn: Callable[[Any, jax.Array], jax.Array]
  train_fn: TrainFunction
  shapes: Any  # of the variables, without values
  init: Callable[[jax.Array], Any]  # key -> variables


def load_data(settings: Settings) -> Dataset:
  """The configured data set, cut by the configured seed."""
  return load_dataset(settings, settings.seed)


def make_network(settings: Settings, data: Dataset) -> Network:
  """Builds the configured network for the data's images and classes.

  Its functions take images as they are stored: what scales pixels is part of the network. Where
  weights are configured, they are its initial ones.
  """
  steps_per_epoch(settings.dense.recipe, data.train)  # refuses a batch that does not fit
  model = settings.model
  module = models.model(model.name, data.num_classes, **model.options)
  example = jax.ShapeDtypeStruct((1, *data.train.x.shape[1:]), jnp.float32)
  init = lambda key: module.init(key, jnp.zeros(example.shape, example.dtype))
  shapes = jax.eval_shape(init, jax.random.key(0))
  if settings.dense.weights:
    imported = models.load_torch(settings.dense.weights, shapes)
    init = lambda key: imported
  scaled = data.pixels or (lambda x: x)
  functions = (models.eval_function, models.train_function)
  eval_fn, train_fn = (
    lambda v, x, fn=fn: fn(v, scaled(x)) for fn in (make(module, model.dtype) for make in functions)
  )
  options = [str(part) for name in sorted(model.options) for part in np.ravel(model.options[name])]
  return Network("-".join([model.name, *options]), eval_fn, train_fn, shapes, init)


def train_dense(settings: Settings, network: Network, data: Dataset, journal: Journal) -> Any:
  """Trains the dense network and saves it; restores it where it is there already."""
  path = journal.place("dense")
  if from_first(lambda: os.path.isdir(path) and set_aside_if_damaged(path) is not None):
    return _restore(path, network)
  init_key, train_key = jax.random.split(jax.random.key(settings.seed))
  recipe = settings.dense.recipe
  variables = jax.jit(network.init)(init_key)
  with journal.loop("dense", "dense epoch", recipe.epochs) as loop:

    def on_epoch(epoch, values, variables):
      loop.record(
        epoch, {**values, "select_accuracy": accuracy(network.eval_fn, variables, data.select)}
      )

    store = loop.store(journal.every.steps, lines_of_epochs(recipe, data.train), "training")
    variables = train(
      network.train_fn, variables, data.train, recipe, train_key, on_epoch, store=store
    )
  check_finite(variables)
  if is_first():
    save_variables(path, variables)
  return variables


def lines_of_epochs(recipe: Recipe, split: Split) -> Callable[[int], int]:
  """For `Loop.store`: the epoch that a step ends is told again by the loop that goes on."""
  per_epoch = steps_per_epoch(recipe, split)
  return lambda step: max(0, step - 1) // per_epoch


def restore_dense(settings: Settings, network: Network) -> Any:
  """The variables that `experiments.train` left in the workdir `settings.dense.checkpoint`.

  Raises:
    InputError: where there are none that fit, or they were trained on images that judge here.
  """
  path = settings.dense.checkpoint
  variables = _restore(place_of(path, "dense"), network)
  trained = runs.read_config(path)
  if trained is not None:
    images = settings.images
    here = {"seed": settings.seed, "dataset": settings.dataset}
    there = {name: trained[name] for name in here}
    for part in ("reward", "select", "test"):  # train is what they leave, or a part of it
      here[f"images.{part}"] = getattr(images, part)
      there[f"images.{part}"] = trained["images"][part]
    for name in here:
      if there[name] != here[name]:
        raise InputError(
          f"dense.checkpoint {path} was trained with {name} {there[name]}, here it is "
          f"{here[name]}: images that it learned would be among those that judge; train it with "
          "the same"
        )
  return variables


def refuse_checkpoint(settings: Settings) -> None:
  """For mains that train their dense networks.

  Raises:
    InputError: where a trained one is given.
  """
  if settings.dense.checkpoint:
    raise InputError(
      f"dense.checkpoint is {settings.dense.checkpoint!r}: only experiments.prune starts from a "
      "trained network; leave it empty"
    )


def _restore(path: str, network: Network) -> Any:
  like = network.shapes
  return arrays_from_first(lambda: restore_variables(path, like), like)


def accuracy(eval_fn: Callable, variables: Any, split: Split) -> float:
  """Share of a split's images that a network classifies correctly."""
  correct = sum(_num_correct(eval_fn, variables, *piece) for piece in split.pieces())
  return float(correct) / len(split.y)


@functools.partial(jax.jit, static_argnums=0)
def _num_correct(eval_fn: Callable, variables: Any, x: jax.Array, y: jax.Array) -> jax.Array:
  return score_logits(eval_fn(variables, x), y).correct.sum()
