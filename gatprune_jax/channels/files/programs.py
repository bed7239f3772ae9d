"""Programs as JSON: what JAX traced, equation by equation, so that it can be traced again.

A StableHLO file runs a network, but hides its layers. A recorded program keeps the equations that
JAX traced, with the sizes that depend on the batch as expressions, and the derivative rules of
functions that have their own. It runs by evaluating one equation after the other, so that `trace`
sees every layer, and gradients are those of the original function. Second derivatives are those of
the rules as they stand: a rule often calls its own function, so that rules of rules have no end.

A program is {"inputs", "outputs", "constants", "equations"}. Values are numbered. An equation is
[operation, operands, results, parameters]; an operand is a number, or [value] for a literal.
Parameters are encoded as `values` says, or as {"program": ...} where they are programs themselves.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.extend.core import primitives
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.files.values import NotRecordableError, decode, encode
from gatprune_jax.channels.tracing.derivatives import derivative, floating
from gatprune_jax.channels.tracing.labelling import CALLS, WITH_DERIVATIVE
from gatprune_jax.channels.tracing.loops import loop_sizes

Recorded = dict[str, Any]  # a program as JSON types

# The parameters of loops and branches that say what they compute; all others say how.
_CONTROL = {
  "scan": ("jaxpr", "length", "reverse", "unroll"),
  "while": ("cond_jaxpr", "cond_nconsts", "body_jaxpr", "body_nconsts"),
  "cond": ("branches",),
}
# Operations on random keys that JAX does not evaluate by their names, as functions of their operand
# and of the name of the implementation.
_RANDOM = {
  "random_wrap": lambda data, impl: jax.random.wrap_key_data(data, impl=impl),
  "random_seed": lambda seed, impl: jax.random.key(seed, impl=impl),
  "random_unwrap": lambda key, impl: jax.random.key_data(key),
}
_SIZE = "dim_as_value"  # the operation that makes a number of a size


def record(fn: Callable, *args: Any) -> Recorded:
  """Returns the program of `fn(*args)`, whose inputs and outputs are the leaves of both trees.

  Args:
    fn: a function of trees of arrays.
    *args: trees of arrays or `jax.ShapeDtypeStruct`s, whose sizes may depend on one symbol,
      "batch".

  Raises:
    NotRecordableError: if fn computes with something that cannot be written down.
  """
  return _encode_program(jax.make_jaxpr(fn)(*args))


def run(program: Recorded, inputs: list[Any], batch: int | None) -> list[Any]:
  """Evaluates a recorded program; it can be traced, differentiated and mapped.

  Args:
    program: what `record` returned.
    inputs: the leaves of its arguments.
    batch: the size of the batch; None if no size depends on it.
  """
  constants = {int(k): decode(value, batch) for k, value in program["constants"].items()}
  env = constants | dict(zip(program["inputs"], inputs, strict=True))

  def read(operand: Any) -> Any:
    return decode(operand[0], batch) if isinstance(operand, list) else env[operand]

  for name, operands, results, params in program["equations"]:
    out = _evaluate(name, [read(operand) for operand in operands], params, batch)
    env.update(zip(results, out, strict=True))
  return [read(operand) for operand in program["outputs"]]


def _encode_program(
  closed: jex_core.ClosedJaxpr | jex_core.Jaxpr, with_rules: bool = True
) -> Recorded:
  """Encodes a program; without rules, functions that have derivative rules are inlined."""
  jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
  numbers: dict[Any, int] = {}
  number = lambda var: numbers.setdefault(var, len(numbers))

  def operand(var: Any) -> Any:
    if not isinstance(var, jex_core.Literal):
      return number(var)
    return [encode(jnp.asarray(var.val, var.aval.dtype))]

  return {
    "inputs": [number(var) for var in jaxpr.invars],
    "constants": {
      number(var): encode(const) for var, const in zip(jaxpr.constvars, consts, strict=True)
    },
    "equations": [
      [
        eqn.primitive.name if with_rules or eqn.primitive.name not in WITH_DERIVATIVE else "jit",
        [operand(var) for var in eqn.invars],
        [number(var) for var in eqn.outvars],
        _encode_params(eqn, with_rules),
      ]
      for eqn in jaxpr.eqns
    ],
    "outputs": [operand(var) for var in jaxpr.outvars],
  }


def _encode_params(eqn: jex_core.JaxprEqn, with_rules: bool) -> dict[str, Any]:
  name, params = eqn.primitive.name, eqn.params
  if name in CALLS:
    encoded = {"body": _encode_program(params[CALLS[name]], with_rules)}
    if with_rules and name in WITH_DERIVATIVE:
      encoded["derivative"] = _encode_program(derivative(eqn).program, with_rules=False)
    return encoded
  if name in _RANDOM:
    return {"impl": params["impl"].name if "impl" in params else None}
  if name in _CONTROL:
    encoded = {key: _encode_param(params[key], with_rules) for key in _CONTROL[name]}
    return {**encoded, "sizes": loop_sizes(eqn)} if name == "scan" else encoded
  if name != _SIZE:
    _primitive(name)
  try:
    return {key: _encode_param(value, with_rules) for key, value in params.items()}
  except NotRecordableError as error:
    raise NotRecordableError(f"`{name}`, which has {error}") from error


def _encode_param(value: Any, with_rules: bool) -> Any:
  if isinstance(value, (jex_core.Jaxpr, jex_core.ClosedJaxpr)):
    avals = getattr(value, "in_avals", None) or [var.aval for var in value.invars]
    inputs = [[encode(aval.shape), aval.dtype.name] for aval in avals]
    return {"program": _encode_program(value, with_rules), "inputs": inputs,
            "closed": isinstance(value, jex_core.ClosedJaxpr)}  # fmt: skip
  if isinstance(value, tuple) and any(isinstance(item, jex_core.ClosedJaxpr) for item in value):
    return [_encode_param(item, with_rules) for item in value]
  return encode(value)


def _decode_param(value: Any, batch: int | None) -> Any:
  if not isinstance(value, dict) or "program" not in value:
    return decode(value, batch)
  specs = [jax.ShapeDtypeStruct(decode(shape, batch), dtype) for shape, dtype in value["inputs"]]
  closed = jax.make_jaxpr(_function(value, batch))(*specs)
  return closed if value["closed"] else closed.jaxpr


def _function(value: dict[str, Any], batch: int | None) -> Callable[..., list[Any]]:
  """Returns the function of a parameter that is a program."""
  return lambda *args: run(value["program"], list(args), batch)


def _primitive(name: str) -> jex_core.Primitive:
  """Returns the primitive of a name.

  Raises:
    NotRecordableError: if JAX's public modules have none of this name.
  """
  attribute = f"{name.replace('-', '_')}_p"
  for module in (primitives, jax.lax):
    if hasattr(module, attribute):
      return getattr(module, attribute)
  raise NotRecordableError(f"`{name}`, which JAX does not evaluate by its name")


def _evaluate(name: str, values: list[Any], params: dict[str, Any], batch: int | None) -> list[Any]:
  """Evaluates one recorded equation."""
  if name in CALLS:
    body = lambda *args: run(params["body"], list(args), batch)
    if name in WITH_DERIVATIVE:
      rule = lambda *args: run(params["derivative"], list(args), batch)
      body = (_with_jvp if name == "custom_jvp_call" else _with_vjp)(body, rule)
    return body(*values)
  if name in _CONTROL:
    return _evaluate_control(name, values, params, batch)
  if name in _RANDOM:
    return [_RANDOM[name](*values, params["impl"])]
  known = {key: _decode_param(value, batch) for key, value in params.items()}
  if name == _SIZE:
    size = known["dim"]
    known_size = isinstance(size, int)  # it is not while a loaded network is saved again
    return [np.asarray(size, jax.dtypes.canonicalize_dtype(np.int64)) if known_size
            else jnp.asarray(size)]  # fmt: skip
  primitive = _primitive(name)
  out = primitive.bind(*values, **known)
  return list(out) if primitive.multiple_results else [out]


def _evaluate_control(
  name: str, values: list[Any], params: dict[str, Any], batch: int | None
) -> list[Any]:
  """Evaluates a loop or a branch by the function of `jax.lax` that makes it."""
  if name == "cond":
    branches = [_function(branch, batch) for branch in params["branches"]]
    return jax.lax.switch(jnp.asarray(values[0], jnp.int32), branches, *values[1:])
  if name == "while":
    first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body = (_function(params[key], batch) for key in ("cond_jaxpr", "body_jaxpr"))
    return jax.lax.while_loop(
      lambda state: condition(*values[:first], *state)[0],
      lambda state: body(*values[first:last], *state),
      values[last:],
    )
  iterate = _function(params["jaxpr"], batch)
  first, num_state = params["sizes"]
  last = first + num_state

  def step(state, slices):
    out = iterate(*values[:first], *state, *slices)
    return out[:num_state], out[num_state:]

  length = decode(params["length"], batch)
  state, stacked = jax.lax.scan(
    step, values[first:last], values[last:], length, params["reverse"], params["unroll"]
  )
  return [*state, *stacked]


def _with_jvp(body: Callable, rule: Callable) -> Callable:
  """Returns the body with a rule (operands, tangents) -> (results, tangents)."""
  function = jax.custom_jvp(body)

  @function.defjvp
  def _(primals, tangents):
    out = rule(*primals, *(tangents[i] for i in floating(primals)))
    return out[: len(out) // 2], out[len(out) // 2 :]

  return function


def _with_vjp(body: Callable, rule: Callable) -> Callable:
  """Returns the body with a rule (operands, cotangents of results) -> cotangents of operands."""
  function = jax.custom_vjp(body)

  def backward(primals, cotangents):
    found = rule(*primals, *(cotangents[i] for i in floating(cotangents)))
    of_operand = dict(zip(floating(primals), found, strict=True))
    return tuple(of_operand.get(i) for i in range(len(primals)))

  function.defvjp(lambda *args: (body(*args), args), backward)
  return function
