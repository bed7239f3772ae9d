"""Turns networks written in Equinox into the form `Network`.

Equinox is an optional dependency: it is imported only when `from_equinox` is called.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError
from gatprune_jax.networks.network import Network

# In evaluation, a batch norm of mode "batch" divides its statistics by 1 - momentum^batches, a
# correction that matters only after few batches. After this number of batches the divisor rounds to
# 1 for every momentum below 1.
_MANY_BATCHES = 2**30


def from_equinox(model: Any, state: Any = None, *, axis_name: str = "batch") -> Network:
  """Returns an Equinox module as a network; the module itself is not changed.

  The module's arrays of floating-point numbers are trained, and the Equinox state is the network's
  state. Batch norms of mode "ema" are trained like those of mode "batch": each batch is normalised
  by its own statistics. `network.in_own_form(variables)` returns the module, or the pair of module
  and state, with the given variables.

  Args:
    model: the module. It is called on one example x without a random key, as `model(x)`, or as
      `model(x, state) -> (outputs, state)` if a state is given.
    state: an `equinox.nn.State`; None for modules without a state.
    axis_name: name of the batch axis that the module's batch norms use.

  Raises:
    InputError: if Equinox is not installed.
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
  """Copies a state, because Equinox makes a state invalid once `State.set` was called on it.

  Each value is computed anew by an operation that does not change it. `State.set` compares the
  types of the old and the new value, and on several devices the type of a computed value names the
  devices, whereas the type of a function's argument does not.
  """
  leaves, treedef = jax.tree.flatten(state)
  same = lambda leaf: leaf | False if leaf.dtype == bool else leaf + jnp.zeros((), leaf.dtype)
  return treedef.unflatten(map(same, leaves))


def _without_warm_up(norms: list[Any], state: Any) -> Any:
  """Returns a state with which mode "batch" evaluates the same function without its divisor.

  The statistics are divided by the current divisor once, here, and the number of batches is set so
  high that the divisor is 1 from then on.
  """
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
  """Returns a state with which batch norms of mode "ema" use only the statistics of the batch.

  Equinox does so on the first batch, when there are no running statistics yet.
  """
  state = _copy(state)
  for norm in norms:
    if norm.mode == "ema":
      first = jnp.ones_like(state.get(norm.ema_first_time_index))
      state = state.set(norm.ema_first_time_index, first)
  return state


def _averaged(norms: list[Any], before: Any, after: Any) -> Any:
  """Returns the state `after` with running statistics of mode "ema", m old + (1 - m) batch.

  Args:
    norms: the module's batch norms.
    before: the state before the batch, with the old running statistics.
    after: the state after the batch; in place of the running statistics it holds the statistics of
      this batch alone.
  """
  before, after = _copy(before), _copy(after)
  for norm in norms:
    if norm.mode == "ema":
      mean = lambda old, new, m=norm.momentum: m * old + (1 - m) * new
      old, new = (state.get(norm.ema_state_index) for state in (before, after))
      after = after.set(norm.ema_state_index, jax.tree.map(mean, old, new))
      after = after.set(norm.ema_first_time_index, before.get(norm.ema_first_time_index))
  return after
