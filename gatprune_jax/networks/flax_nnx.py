"""Turns networks written in Flax NNX into the form `Network`."""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from gatprune_jax.networks.network import Network


def from_nnx(module: nnx.Module) -> Network:
  """Returns an NNX module as a network; the module itself is not changed.

  The module's `nnx.Param`s are trained. Everything else in the module, such as batch statistics and
  random streams, is the network's state. `network.in_own_form(variables)` returns a module with the
  given variables.

  Args:
    module: the module, called as `module(x)`; `module.train()` and `module.eval()` set its mode.
  """
  definition, state = nnx.split(module)
  # The variables hold the integers that a random stream's key is made of instead of the key itself,
  # because integers can be saved and stacked.
  kinds = [
    jax.random.key_impl(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else None
    for leaf in jax.tree.leaves(state)
  ]

  def with_changed_keys(tree: Any, change: Callable[[jax.Array, Any], jax.Array]) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(leaves, kinds, strict=True)
    return treedef.unflatten([leaf if kind is None else change(leaf, kind) for leaf, kind in pairs])

  def with_numbers(state: Any) -> Any:
    return with_changed_keys(state, lambda key, _: jax.random.key_data(key))

  def with_keys(variables: Any) -> Any:
    return with_changed_keys(
      variables, lambda data, kind: jax.random.wrap_key_data(data, impl=kind)
    )

  def in_own_form(variables: Any) -> nnx.Module:
    return nnx.merge(definition, with_keys(variables))

  def eval_fn(variables: Any, x: Any) -> Any:
    own = in_own_form(variables)
    own.eval()
    return own(x)

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    own = in_own_form(variables)
    own.train()
    return own(x), with_numbers(nnx.state(own))

  return Network(eval_fn, train_fn, with_numbers(state), in_own_form=in_own_form)
