"""Turns networks written in Flax Linen into the form `Network`."""

from typing import Any

from flax import linen as nn

from gatprune_jax.networks.network import Network


def from_linen(
  module: nn.Module, variables: Any, *, train: str = "train", **options: Any
) -> Network:
  """Returns a Linen module as a network.

  In train mode every collection except "params" may be updated. The module must not draw random
  numbers; for a module with dropout, write the two functions yourself and use `Network`.

  Args:
    module: the module, called as `module(x, train=False)` and `module(x, train=True)`.
    variables: the variables that `module.init` returned, after training.
    train: name of the keyword argument that switches train mode on. Give "" if the module has no
      such argument because nothing in it depends on the mode, and "not deterministic" if an
      argument `deterministic` switches train mode off.
    **options: further keyword arguments that every call of the module receives.
  """
  negated, name = train.startswith("not "), train.removeprefix("not ")
  mode = lambda trains: {name: trains is not negated} if name else {}
  state = [collection for collection in variables if collection != "params"]

  def eval_fn(variables: Any, x: Any) -> Any:
    return module.apply(variables, x, **mode(False), **options)

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    return module.apply(variables, x, **mode(True), **options, mutable=state)

  return Network(eval_fn, train_fn, variables)
