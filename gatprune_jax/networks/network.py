"""The form that every network has in this package.

A network is two pure functions (one for evaluation, one for training), their variables, and a flag
for each variable that says whether gradient steps change it.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import (
  ChannelGraph,
  Convolution,
  Origin,
  WithGroupsBy,
  check_finite,
  compact,
  cut,
  leaf_paths,
  masked,
  parameter_flags,
)
from gatprune_jax.errors import InputError, first_line
from gatprune_jax.kernels.convolution import network_convolution


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A network as pure functions of its variables.

  Gradient steps change the trainable variables. The other variables are the network's *state*, for
  example running statistics, which only the train function changes.

  Attributes:
    eval_fn: `eval_fn(variables, x) -> outputs` for a batch x; outputs are any tree of arrays whose
      first axis is the batch. Normalisation layers use running statistics.
    train_fn: `train_fn(variables, x) -> (outputs, updated)`. Normalisation layers use the
      statistics of the batch. `updated` is all variables after the batch or, if the variables are
      a dict, only those of its entries that the batch changed (`{}` if it changed none).
    variables: a tree of arrays, or of `jax.ShapeDtypeStruct` while there are no values yet.
    trainable: which variables are trained, a tree of bools that is a prefix of the variables' tree.
      None selects the "params" collection of a dict, the `nnx.Param`s of an NNX state, and every
      array of floating-point numbers of any other tree.
    in_own_form: returns the framework's own module for given variables, which may have been cut to
      the kept channels. None if the framework's modules do not hold their variables.
    origin: the first network that this one was cut from; None if nothing was cut.
  """

  eval_fn: Callable[[Any, Any], Any]
  train_fn: Callable[[Any, Any], tuple[Any, Any]]
  variables: Any
  trainable: Any = None
  in_own_form: Callable[[Any], Any] | None = None
  origin: Origin | None = None

  @functools.cached_property
  def trains(self) -> tuple[bool, ...]:
    """Whether each leaf of the variables is trained, in the order of `jax.tree.leaves`.

    Raises:
      InputError: if `trainable` does not fit the variables.
    """
    if self.trainable is None:
      return tuple(parameter_flags(self.variables))
    try:
      flags = jax.tree.leaves(jax.tree.broadcast(self.trainable, self.variables))
    except ValueError as error:
      raise InputError(
        f"trainable is no prefix of the variables' tree ({first_line(error)}): give a bool for "
        "each of its entries, such as {'kernels': True, 'statistics': False}"
      ) from error
    for path, leaf, flag in zip(
      leaf_paths(self.variables), jax.tree.leaves(self.variables), flags, strict=True
    ):
      if not isinstance(flag, (bool, np.bool_)):
        raise InputError(f"trainable of {path} is {flag!r}: it must be True or False")
      if flag and not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise InputError(f"trainable of {path} is True, but it holds {leaf.dtype} values")
    return tuple(bool(flag) for flag in flags)

  def with_variables(self, variables: Any) -> "Network":
    """Returns the same network with other values of its variables."""
    return dataclasses.replace(self, variables=variables)

  def split(self, variables: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Splits the leaves of variables into those that are trained and those of the state."""
    pairs = list(zip(jax.tree.leaves(variables), self.trains, strict=True))
    return tuple(leaf for leaf, t in pairs if t), tuple(leaf for leaf, t in pairs if not t)

  def merge(self, params: tuple[Any, ...], state: tuple[Any, ...]) -> Any:
    """Returns the variables that `split` split into `params` and `state`."""
    params, state = iter(params), iter(state)
    leaves = [next(params if trains else state) for trains in self.trains]
    return jax.tree.unflatten(jax.tree.structure(self.variables), leaves)

  def forward_train(self, variables: Any, x: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns the outputs in train mode, and the leaves of the state after the batch."""
    outputs, updated = self.train_fn(variables, x)
    return outputs, self.split(_complete(variables, updated))[1]


def _complete(variables: Any, updated: Any) -> Any:
  """Returns all variables, with the entries that a train function returned as `updated`."""
  if jax.tree.structure(updated) == jax.tree.structure(variables):
    return updated
  if isinstance(variables, Mapping) and isinstance(updated, Mapping):
    return {**variables, **updated}
  return updated


def masked_network(
  graph: ChannelGraph, network: Network, mask: Any, conv: Convolution | None = None
) -> Network:
  """Returns the network with channels masked; its variables keep their dense shapes.

  Args:
    graph: the network's channels.
    network: the dense network.
    mask: `[N]`, 1 = keep.
    conv: replaces the convolution of every layer, see `masked`; None keeps XLA's convolution.
  """
  under_mask = lambda fn: lambda variables, x: masked(graph, fn, conv)(variables, mask, x)
  return dataclasses.replace(
    network, eval_fn=under_mask(network.eval_fn), train_fn=under_mask(network.train_fn)
  )


def fast_network(network: Network) -> Network:
  """Returns the network with its convolutions in groups in the form that the backend runs fast.

  It computes the same, and is used while networks are trained and judged. What is handed out keeps
  the network's own convolutions, which other backends and file formats know better.

  Args:
    network: any network.
  """
  conv = network_convolution()
  if conv is None:
    return network
  return dataclasses.replace(
    network, eval_fn=WithGroupsBy(network.eval_fn, conv),
    train_fn=WithGroupsBy(network.train_fn, conv),
  )  # fmt: skip


def compact_network(
  graph: ChannelGraph, network: Network, mask: Any, allow_empty: bool = False
) -> Network:
  """Returns the network with channels removed; see `compact`.

  Args:
    graph: the network's channels.
    network: the dense network.
    mask: `[N]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that another path bypasses.
  """
  small = compact(graph, network.eval_fn, network.variables, mask, allow_empty)
  small_train = compact(graph, network.train_fn, network.variables, mask, allow_empty)
  return dataclasses.replace(
    network, eval_fn=small.apply, train_fn=small_train.apply, variables=small.variables,
    origin=cut(network.origin, graph, mask),
  )  # fmt: skip


def check_network(network: Network, x: Any) -> None:
  """Checks the train function on a batch; `gatprune_jax.trace` checks the eval function.

  Args:
    network: the network; its variables hold values, not only shapes.
    x: a batch of inputs `[B, ...]`, as the network's functions take it.

  Raises:
    InputError: if variables are not finite, or if train_fn fails, returns no state, returns a state
      of another structure, or changes a trainable variable.
  """
  check_finite(network.variables)
  try:
    result = jax.eval_shape(network.train_fn, network.variables, x)
  except Exception as error:
    raise InputError(
      f"train_fn(variables, x) fails with {type(error).__name__}: {first_line(error)}"
    ) from error
  if not (isinstance(result, (tuple, list)) and len(result) == 2):
    raise InputError(
      f"train_fn returns {_kind(result)}: it must return the outputs and the state, (outputs, "
      "updated variables), with {} as the second where a batch changes no variable"
    )
  complete = _complete(network.variables, result[1])
  here, there = map(_forms, (network.variables, complete))
  if here != there:
    raise InputError(
      "train_fn returns as its state what are not the network's variables: it must have all of "
      f"them, or whole entries of their dict, with their shapes; {_first_difference(here, there)}"
    )
  before = network.split(network.variables)[0]
  after = jax.jit(
    lambda v, x: network.split(_complete(v, network.train_fn(v, x)[1]))[0]
  )(network.variables, x)  # fmt: skip
  names = zip(leaf_paths(network.variables), network.trains, strict=True)
  names = (path for path, trains in names if trains)
  for name, old, new in zip(names, before, after, strict=True):
    if not np.array_equal(np.asarray(old), np.asarray(new)):
      raise InputError(
        f"train_fn changes variable {name}, which trains by gradient steps: it is a running "
        "statistic, so say in trainable that it is not trained, such as {'params': True, "
        "'statistics': False}"
      )


def _forms(tree: Any) -> list[tuple[str, tuple[int, ...], Any]]:
  """Returns path, shape and dtype of every leaf."""
  pairs = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
  return [(path, leaf.shape, leaf.dtype) for path, leaf in pairs]


def _kind(value: Any) -> str:
  if isinstance(value, (tuple, list)):
    return f"{len(value)} values"
  return f"one array of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__


def _first_difference(here: list[Any], there: list[Any]) -> str:
  for mine, its in zip(here, there, strict=False):
    if mine != its:
      show = lambda leaf: f"{leaf[0]} {leaf[2]}{list(leaf[1])}"
      return f"there {show(its)} is where {show(mine)} was expected"
  return f"there are {len(there)} arrays, {len(here)} were expected"
