"""Networks written in Flax Linen."""

from typing import Any

from flax import linen as nn

from gatprune_jax.networks.network import Network


def from_linen(
  module: nn.Module, variables: Any, *, train: str = "train", **options: Any
) -> Network:
  """A Linen module as a network.

  In train mode every collection but "params" may be updated. The module draws no random numbers:
  for one with dropout, write the functions and use `Network`.

  Args:
    module: called as `module(x, train=False)` and `module(x, train=True)`.
    variables: what `module.init` returned, trained.
    train: the name of the keyword argument that says whether it trains; "" where it has none, since
      nothing in it depends on the mode. Of an argument that says the opposite, such as
      `deterministic`, write "not deterministic".
    **options: further keyword arguments of every call.
  """
  negated, name = train.startswith("not "), train.removeprefix("not ")
  mode = lambda trains: {name: trains is not negated} if name else {}
  state = [collection for collection in variables if collection != "params"]

  def eval_fn(variables: Any, x: Any) -> Any:
    return module.apply(variables, x, **mode(False), **options)

  def train_fn(variables: Any, x: Any) -> tuple[Any, Any]:
    return module.apply(variables, x, **mode(True), **options, mutable=state)

  return Network(eval_fn, train_fn, variables)
