"""Networks written in Equinox, which is imported where one is given."""

from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError
from gatprune_jax.networks.network import Network

# Batch norms of mode "batch" divide their statistics by 1 - momentum^batches, for the first ones.
# After so many batches the divisor is 1, whatever the momentum.
_MANY_BATCHES = 2**30


def from_equinox(model: Any, state: Any = None, *, axis_name: str = "batch") -> Network:
  """An Equinox module as a network; the module itself is not changed.

  Its arrays of floating-point numbers train, and the state is the network's state. Batch norms of
  mode "ema" are trained as those of mode "batch" are: a batch is normalised by its own statistics.
  `network.in_own_form(variables)` gives the module, or the pair of module and state, with these
  variables.

  Args:
    model: called as `model(x)`, or `model(x, state) -> (outputs, state)` where there is a state,
      with one example x and no random key.
    state: an `equinox.nn.State`; None for modules without one.
    axis_name: name of the batch axis that its batch norms use.

  Raises:
    InputError: where Equinox is not installed.
  """
  try:
    import equinox as eqx
  except ImportError as error:
    raise InputError("from_equinox needs Equinox: pip install equinox") from error
  params, static = eqx.partition(model, eqx.is_inexact_array)
  is_norm = lambda node: isinstance(node, eqx.nn.BatchNorm)
  norms = [node for node in jax.tree.leaves(model, is_leaf=is_norm) if is_norm(node)]
  over_batch = {"axis_name": axis_name, "in_axes": (0, None), "out_axes": (0, None)}

  def merged(variables: Any, inference: bool) -> Any:
    module = eqx.combine(variables["params"], static)
    return eqx.nn.inference_mode(module, value=inference)

  def eval_fn(variables: Any, x: Any) -> Any:
    module = merged(variables, True)
    if state is None:
      return jax.vmap(module)(x)
    return jax.vmap(module, **over_batch)(x, variables["state"])[0]

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    module = merged(variables, False)
    if state is None:
      return jax.vmap(module)(x), {}
    outputs, after = jax.vmap(module, **over_batch)(x, _as_if_first(norms, variables["state"]))
    return outputs, {"state": _averaged(norms, variables["state"], after)}

  def in_own_form(variables: Any) -> Any:
    module = eqx.combine(variables["params"], static)
    return module if state is None else (module, variables["state"])

  variables = {"params": params}
  if state is not None:
    variables["state"] = _without_warm_up(norms, state)
  return Network(eval_fn, train_fn, variables, in_own_form=in_own_form)


def _copy(state: Any) -> Any:
  """A state that may be set: Equinox lets a state be set only once.

  Its values are computed anew. Equinox compares their types with those of what is set, and on
  several devices a result has another type, which names them, than an argument.
  """
  leaves, treedef = jax.tree.flatten(state)
  same = lambda leaf: leaf | False if leaf.dtype == bool else leaf + jnp.zeros((), leaf.dtype)
  return treedef.unflatten(map(same, leaves))


def _without_warm_up(norms: list[Any], state: Any) -> Any:
  """The same function: statistics divided already by what evaluation divides them by."""
  state = _copy(state)
  for norm in norms:
    if norm.mode == "batch":
      count = state.get(norm.batch_counter)
      scale = jnp.where(count == 0, 1, 1 - norm.momentum**count)
      statistics = jax.tree.map(lambda s, by=scale: s / by, state.get(norm.batch_state_index))
      state = state.set(norm.batch_state_index, statistics)
      state = state.set(norm.batch_counter, jnp.full_like(count, _MANY_BATCHES))
  return state


def _as_if_first(norms: list[Any], state: Any) -> Any:
  """A state with which batch norms of mode "ema" use the statistics of the batch alone."""
  state = _copy(state)
  for norm in norms:
    if norm.mode == "ema":
      first = jnp.ones_like(state.get(norm.ema_first_time_index))
      state = state.set(norm.ema_first_time_index, first)
  return state


def _averaged(norms: list[Any], before: Any, after: Any) -> Any:
  """What batch norms of mode "ema" would have made of the statistics of the batch."""
  before, after = _copy(before), _copy(after)
  for norm in norms:
    if norm.mode == "ema":
      mean = lambda old, new, m=norm.momentum: m * old + (1 - m) * new
      old, new = (state.get(norm.ema_state_index) for state in (before, after))
      after = after.set(norm.ema_state_index, jax.tree.map(mean, old, new))
      after = after.set(norm.ema_first_time_index, before.get(norm.ema_first_time_index))
  return after
