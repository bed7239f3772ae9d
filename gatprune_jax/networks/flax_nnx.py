"""Networks written in Flax NNX."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from gatprune_jax.networks.network import Network


def from_nnx(module: nnx.Module) -> Network:
  """An NNX module as a network; the module itself is not changed.

  Its `nnx.Param`s train, and everything else that it holds, batch statistics and random streams, is
  its state. `network.in_own_form(variables)` gives a module with these variables.

  Args:
    module: called as `module(x)`; `module.train()` and `module.eval()` set its mode.
  """
  definition, state = nnx.split(module)
  # Keys of random streams are kept as the numbers they are made of: those can be saved and stacked.
  kinds = [
    jax.random.key_impl(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else None
    for leaf in jax.tree.leaves(state)
  ]

  def with_numbers(state: Any) -> Any:
    leaves, treedef = jax.tree.flatten(state)
    pairs = zip(leaves, kinds, strict=True)
    return treedef.unflatten(
      [leaf if kind is None else jax.random.key_data(leaf) for leaf, kind in pairs]
    )

  def with_keys(variables: Any) -> Any:
    leaves, treedef = jax.tree.flatten(variables)
    pairs = zip(leaves, kinds, strict=True)
    return treedef.unflatten(
      [leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind) for leaf, kind in pairs]
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
