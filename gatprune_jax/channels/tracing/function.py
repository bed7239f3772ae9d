"""Traces a user's function, with errors that say what is wrong with the function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import leaf_paths
from gatprune_jax.errors import InputError, first_line

_VALUE_NEEDED = (
  jax.errors.ConcretizationTypeError,
  jax.errors.TracerArrayConversionError,
  jax.errors.UnexpectedTracerError,
)


def trace_pure(apply_fn: Callable, variables: Any, x: Any) -> jex_core.ClosedJaxpr:
  """Returns the jaxpr of `apply_fn(variables, x)` and checks that apply_fn is pure.

  The function is traced twice, because one that depends on Python side effects can trace to two
  different programs.

  Args:
    apply_fn: the function.
    variables: pytree of arrays, or of `jax.ShapeDtypeStruct`.
    x: example input, an array or pytree of arrays.

  Raises:
    InputError: if apply_fn fails, takes its arguments in the other order, computes with array
      values in Python, or traces to a different program the second time.
  """
  try:
    first = jax.make_jaxpr(lambda *args: apply_fn(*args))(variables, x)
    second = jax.make_jaxpr(lambda *args: apply_fn(*args))(variables, x)
  except _VALUE_NEEDED as error:
    raise InputError(
      "apply_fn depends on Python side effects or on array values in Python (`if`, `int()`, NumPy, "
      f"an array remembered from an earlier call), so it cannot be traced: {first_line(error)}"
    ) from error
  except Exception as error:
    if _runs(apply_fn, x, variables):
      raise InputError(
        "the variables are not the first argument of apply_fn: it runs as apply_fn(x, variables). "
        "Pass `lambda variables, x: apply_fn(x, variables)`, the variables, and x"
      ) from error
    raise InputError(
      f"apply_fn(variables, x) fails with {type(error).__name__}: {first_line(error)}"
    ) from error
  if not _same_programs(first, second):
    raise InputError(
      "apply_fn depends on Python side effects: called twice with the same arguments it traces to "
      "two different programs. Make it a pure function of (variables, x)"
    )
  return first


def check_arguments(args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
  """Checks the arguments, after the variables, with which a masked or compact function is called.

  Raises:
    InputError: if one is a keyword argument, or holds anything but arrays and numbers.
  """
  flags = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, (bool, str))]
  if keywords or flags:
    named = [f"{name}={value!r}" for name, value in keywords.items()]
    raise InputError(
      f"the function was called with {', '.join([*named, *map(repr, flags)])}, but it takes arrays "
      "alone, by position: write flags and keywords into the function, as in `lambda variables, x: "
      "apply(variables, x, train=False)`"
    )


def check_finite(variables: Any) -> None:
  """Raises InputError if a variable holds NaN or infinity, naming the first such variable."""
  for path, array in zip(leaf_paths(variables), jax.tree.leaves(variables), strict=True):
    if isinstance(array, (np.ndarray, jax.Array)) and jnp.issubdtype(array.dtype, jnp.inexact):
      bad = int((~np.isfinite(np.asarray(array))).sum())
      if bad:
        raise InputError(
          f"variable {path} holds {bad} values that are NaN or infinite: finite weights are needed"
        )


def _runs(fn: Callable, *args: Any) -> bool:
  try:
    jax.eval_shape(fn, *args)
  except Exception:
    return False
  return True


def _same_programs(first: Any, second: Any) -> bool:
  """Returns whether two jaxprs look the same, as far as can be seen without running them."""
  if first is second:
    return True
  consts = [getattr(closed, "consts", ()) for closed in (first, second)]
  if len(consts[0]) != len(consts[1]) or not all(map(_same_values, *consts)):
    return False
  one, two = getattr(first, "jaxpr", first), getattr(second, "jaxpr", second)
  renamed: dict[Any, Any] = {}

  def same_var(a, b) -> bool:
    if isinstance(a, jex_core.Literal) or isinstance(b, jex_core.Literal):
      return type(a) is type(b) and _same_values(a.val, b.val)
    return renamed.setdefault(a, b) is b

  return (
    len(one.eqns) == len(two.eqns)
    and len(one.invars) == len(two.invars)
    and all(map(same_var, [*one.constvars, *one.invars], [*two.constvars, *two.invars]))
    and all(
      a.primitive is b.primitive
      and len(a.invars) == len(b.invars)
      and all(map(same_var, [*a.invars, *a.outvars], [*b.invars, *b.outvars]))
      and all(_same_params(value, b.params.get(name)) for name, value in a.params.items())
      for a, b in zip(one.eqns, two.eqns, strict=True)
    )
    and all(map(same_var, one.outvars, two.outvars))
  )


def _same_values(a: Any, b: Any) -> bool:
  if a is b:
    return True
  if jnp.issubdtype(getattr(a, "dtype", None), jax.dtypes.prng_key):
    a, b = jax.random.key_data(a), jax.random.key_data(b)
  return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")


def _same_params(a: Any, b: Any) -> bool:
  """Returns whether two parameters of an equation are equal.

  Numbers, strings, dtypes and nested jaxprs are compared. All other values count as equal: a
  function, for example, is a new object in every trace.
  """
  if hasattr(a, "eqns") or hasattr(a, "jaxpr"):
    return _same_programs(a, b)
  if isinstance(a, (tuple, list)):
    return isinstance(b, (tuple, list)) and len(a) == len(b) and all(map(_same_params, a, b))
  if isinstance(a, float) and isinstance(b, float) and np.isnan(a):
    return bool(np.isnan(b))  # a gather can fill with NaN, which equals no number
  return a == b if isinstance(a, (int, float, str, np.dtype, type(None))) else True
