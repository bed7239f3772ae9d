"""The dense network that the main programs start from: it is made, then trained or restored."""

from collections.abc import Callable
import dataclasses
import importlib
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.settings import Settings
from gatprune_jax import models
from gatprune_jax.channels import check_finite
from gatprune_jax.data import Dataset, Split, load_dataset
from gatprune_jax.errors import InputError, first_line
from gatprune_jax.evaluation import mean_score
from gatprune_jax.networks import CLASSIFICATION, Network
from gatprune_jax.pruning import lines_of_epochs
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.checkpoint import restore_variables, save_variables, set_aside_if_damaged
from gatprune_jax.runs.logger import RunLogger, place_of
from gatprune_jax.runtime import compilation
from gatprune_jax.runtime.processes import arrays_from_first, from_first, is_first
from gatprune_jax.training import steps_per_epoch, train


class Dense(NamedTuple):
  """A network before it is trained."""

  name: str
  network: Network  # variables: shapes and dtypes only, or the values of the factory
  init: Callable[[jax.Array], Any]  # key -> variables


def load_data(settings: Settings) -> Dataset:
  """Loads the configured data set, cut into its parts by the configured seed."""
  return load_dataset(settings, settings.seed)


def make_network(settings: Settings, data: Dataset) -> Dense:
  """Builds the configured network for the data's images and classes.

  The network's functions take images as they are stored, and scale the pixels themselves.
  """
  if not settings.dense.trained:
    steps_per_epoch(settings.dense.recipe, data.train)  # raises if a batch does not fit
  made = _from_factory(settings, data) if settings.model.factory else _from_name(settings, data)
  if data.pixels is None:
    return made
  scaled = lambda fn: lambda variables, x: fn(variables, data.pixels(x))
  network = dataclasses.replace(
    made.network, eval_fn=scaled(made.network.eval_fn), train_fn=scaled(made.network.train_fn)
  )
  return made._replace(network=network)


def _from_name(settings: Settings, data: Dataset) -> Dense:
  """Makes a network of `gatprune_jax.models`; configured weights become its initial variables."""
  model = settings.model
  module = models.model(model.name, data.num_classes, **model.options)
  example = jax.ShapeDtypeStruct((1, *data.train.x.shape[1:]), jnp.float32)
  init = lambda key: module.init(key, jnp.zeros(example.shape, example.dtype))
  shapes = jax.eval_shape(init, jax.random.key(0))
  if settings.dense.weights:
    imported = models.load_torch(settings.dense.weights, shapes)
    init = lambda key: imported
  functions = (models.eval_function, models.train_function)
  network = Network(*(make(module, model.dtype) for make in functions), shapes)
  options = [str(part) for name in sorted(model.options) for part in np.ravel(model.options[name])]
  return Dense("-".join([model.name, *options]), network, init)


def _from_factory(settings: Settings, data: Dataset) -> Dense:
  """Makes the network by a function of the user, which `model.factory` names.

  Raises:
    InputError: if the function is not found, fails, or does not return a `Network`.
  """
  factory = settings.model.factory
  module, _, name = factory.partition(":")
  try:
    make = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise InputError(
      f"model.factory {factory} is not found ({first_line(error)}): name MODULE:FUNCTION of an "
      "importable module, by PYTHONPATH perhaps"
    ) from error
  shape = tuple(data.train.x.shape[1:])
  try:
    network = make(data.num_classes, shape)
  except Exception as error:
    raise InputError(
      f"model.factory {factory} fails with {type(error).__name__}: {first_line(error)}: it is "
      f"called with the number of classes and the image shape, ({data.num_classes}, {shape})"
    ) from error
  if not isinstance(network, Network):
    raise InputError(
      f"model.factory {factory} returns a {type(network).__name__}: it must return a "
      "gatprune_jax.Network, as from_linen, from_nnx and from_equinox make one"
    )
  if settings.dense.weights:
    raise InputError(
      f"dense.weights is {settings.dense.weights!r}, but model.factory makes its own variables: "
      "leave one of the two empty"
    )
  check_finite(network.variables)
  return Dense(factory, network, lambda key: network.variables)


def train_dense(settings: Settings, dense: Dense, data: Dataset, logger: RunLogger) -> Any:
  """Trains the dense network and saves it, or restores it if it is saved already.

  If `dense.trained` is set, the initial variables are returned without training.

  Args:
    settings: settings of the experiment.
    dense: the untrained network, from `make_network`.
    data: its train part trains the network; accuracy on its select part is logged.
    logger: logs and saves the training, and has the place of the trained network.

  Returns:
    The trained variables.
  """
  network = dense.network
  if settings.dense.trained:
    return jax.tree.map(jnp.asarray, dense.init(jax.random.key(settings.seed)))
  path = logger.place("dense")
  if from_first(lambda: os.path.isdir(path) and set_aside_if_damaged(path) is not None):
    return _restore(path, network)
  init_key, train_key = jax.random.split(jax.random.key(settings.seed))
  recipe = settings.dense.recipe
  variables = compilation.call_once(dense.init, init_key)
  with logger.loop("dense", "dense epoch", recipe.epochs) as loop:

    def on_epoch(epoch, values, variables):
      loop.record(epoch, {**values, "select_accuracy": accuracy(network, variables, data.select)})

    checkpointer = loop.checkpointer(
      logger.every.steps, lines_of_epochs(recipe, data.train), "training"
    )
    variables = train(
      network.with_variables(variables), CLASSIFICATION, data.train, recipe, train_key, on_epoch,
      checkpointer=checkpointer,
    )  # fmt: skip
  check_finite(variables)
  if is_first():
    save_variables(path, variables)
  return variables


def restore_dense(settings: Settings, network: Network) -> Any:
  """Restores the variables that `experiments.train` saved in `settings.dense.checkpoint`.

  Raises:
    InputError: if the workdir has no variables that fit the network, or if they were trained with
      another seed, data set or number of images of a part. In the latter case they may have learned
      images that are in the reward, select or test part here.
  """
  path = settings.dense.checkpoint
  variables = restore(path, network)
  trained = runs.read_config(path)
  if trained is not None:
    images = settings.images
    here = {"seed": settings.seed, "dataset": settings.dataset}
    there = {name: trained[name] for name in here}
    for part in ("reward", "select", "test"):  # the train part is taken from the rest
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
  """Refuses `dense.checkpoint`, for main programs that train the dense network themselves.

  Raises:
    InputError: if a checkpoint is given.
  """
  if settings.dense.checkpoint:
    raise InputError(
      f"dense.checkpoint is {settings.dense.checkpoint!r}: only experiments.prune starts from a "
      "trained network; leave it empty"
    )


def restore(folder: str, network: Network) -> Any:
  """Restores the variables of the dense network that `train_dense` saved in a folder.

  Raises:
    InputError: if there are none, or they do not fit the network.
  """
  return _restore(place_of(folder, "dense"), network)


def _restore(path: str, network: Network) -> Any:
  like = network.variables
  return arrays_from_first(lambda: restore_variables(path, like), like)


def accuracy(network: Network, variables: Any, split: Split) -> float:
  """Returns the share of a split's images that a network classifies correctly."""
  return mean_score(network, CLASSIFICATION, variables, split)
