"""Replaces the grouped convolutions of any function, as `masked` does those of a network."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax.extend import core as jex_core

from gatprune_jax.channels.interpreter import Convolution
from gatprune_jax.channels.tracing.derivatives import evaluate_alone

_CALLS = ("jit", "pjit")  # calls whose bodies are evaluated in their places


@dataclasses.dataclass(frozen=True)
class WithGroupsBy:
  """A function whose convolutions in groups are computed in another form.

  Those in calls of compiled functions are replaced too, but not those in loops, in checkpointed
  functions and in functions with derivatives of their own. A function without such convolutions is
  called as it is. Two objects with equal attributes are equal, so that one can be a static argument
  under jit.

  Attributes:
    fn: any traceable function.
    conv: computes a convolution; called with the two operands of `conv_general_dilated` and the
      primitive's parameters as keywords.
  """

  fn: Callable[..., Any]
  conv: Convolution

  def __call__(self, *args: Any) -> Any:
    """Returns `fn(*args)`."""
    closed, out = jax.make_jaxpr(self.fn, return_shape=True)(*args)
    if not _has_groups(closed.jaxpr):
      return self.fn(*args)
    results = self._run(closed, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(out), results)

  def _run(self, closed: jex_core.ClosedJaxpr, values: list[Any]) -> list[Any]:
    """Evaluates a program on the values of its inputs."""
    jaxpr = closed.jaxpr
    of = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    of.update(zip(jaxpr.invars, values, strict=True))
    read = lambda var: var.val if isinstance(var, jex_core.Literal) else of[var]
    for eqn in jaxpr.eqns:
      of.update(zip(eqn.outvars, self._evaluate(eqn, list(map(read, eqn.invars))), strict=True))
    return list(map(read, jaxpr.outvars))

  def _evaluate(self, eqn: jex_core.JaxprEqn, values: list[Any]) -> list[Any]:
    if _is_grouped(eqn):
      return [self.conv(*values, **eqn.params)]
    if eqn.primitive.name in _CALLS and _has_groups(eqn.params["jaxpr"].jaxpr):
      return self._run(eqn.params["jaxpr"], values)
    return evaluate_alone(eqn, values)


def _is_grouped(eqn: jex_core.JaxprEqn) -> bool:
  is_convolution = eqn.primitive is jax.lax.conv_general_dilated_p
  return is_convolution and eqn.params["feature_group_count"] > 1


def _has_groups(jaxpr: jex_core.Jaxpr) -> bool:
  """Returns whether a program has a convolution in groups that would be replaced."""
  return any(
    _is_grouped(eqn) or (eqn.primitive.name in _CALLS and _has_groups(eqn.params["jaxpr"].jaxpr))
    for eqn in jaxpr.eqns
  )
