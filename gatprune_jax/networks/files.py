"""Saves networks to disk, and reads them back to run them, or to train and prune them further."""

import os
from typing import Any

import jax

from gatprune_jax.channels import Compact, Loaded, Training, load_network, save_network
from gatprune_jax.channels.batch import batch_size, find_batch
from gatprune_jax.channels.files.exporting import any_batch
from gatprune_jax.networks.network import Network


def save(
  path: str | os.PathLike, small: Compact | Loaded | Network, x: Any, batch: int | None = None
) -> None:
  """Writes a network to a new directory so that `load` runs it without its model's code.

  Beside the function and the variables, the directory has which of the first network's elements
  the variables hold, and where possible the network's layers, for `load(path, trainable=True)`. No
  file has a path of this machine.

  Args:
    path: the directory to write; it must not exist yet, and appears only once it is complete.
    small: the network. Only a `Network` has a train function; another one, loaded again to be
      trained, computes the same in train mode as in eval mode, with the batch statistics that it
      has.
    x: an example input.
    batch: number of examples that the saved network takes; None: any number. See `find_batch`.

  Raises:
    InputError: if the path exists or cannot be written, the batch is not a positive number, two
      variables in other containers than dicts, lists and tuples have the same path, x does not show
      which of its axes is the batch, or x or the outputs are in such other containers.
  """
  if not isinstance(small, Network):
    save_network(path, small, x, batch)
    return

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    outputs, state = small.forward_train(variables, x)
    return outputs, small.merge(small.split(variables)[0], state)

  compact = Compact(small.eval_fn, small.variables, small.origin)
  save_network(path, compact, x, batch, Training(train_fn, small.trains))


def check_saving(network: Network, x: Any) -> None:
  """Raises InputError unless `save` can write a network for any batch size; writes nothing.

  Args:
    network: the network, whose variables may be shapes.
    x: an example input, which may be a shape.
  """
  outputs = jax.eval_shape(network.eval_fn, network.variables, x)
  spec = find_batch(x, outputs).resized(x, batch_size(None))
  with any_batch():
    jax.eval_shape(network.eval_fn, network.variables, spec)


def load(path: str | os.PathLike, trainable: bool = False) -> Loaded | Network:
  """Reads a network that `save` wrote, after checking every byte of it.

  Args:
    path: the directory.
    trainable: whether the network is to be trained, traced or pruned further.

  Returns:
    A `Loaded`, which has `apply(variables, x)` and variables; or, if it is to be trained, a
    `Network`, whose budgets in `prune` are shares of the first network's costs.

  Raises:
    InputError: if the path is not a complete saved network, a file was changed since it was
      written, its variables need 64-bit dtypes that JAX does not keep, or it is to be trained and
      was saved without its layers, or with layers that this version of JAX cannot evaluate.
  """
  loaded = load_network(path, trainable)
  if not trainable:
    return loaded
  flags = jax.tree.unflatten(jax.tree.structure(loaded.variables), loaded.training.trains)
  return Network(
    loaded.apply, loaded.training.train_fn, loaded.variables, flags, origin=loaded.origin
  )
