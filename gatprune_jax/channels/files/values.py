"""The parameters of equations as JSON types.

Numbers, strings, None and sequences stand for themselves, and sequences come back as tuples. Every
other value is an object with one key that says what it is:

  {"dimension": text}        a size that depends on the batch, such as "2*batch + 1"
  {"dtype": name}            a dtype
  {"array": [dtype, shape, bytes in base64]}
  {"key": [implementation, array]}   an array of random keys
  {"member": [class, name]}  a member of an enumeration of `jax.lax`
  {"fields": [class, {name: value}]} a named tuple of `jax.lax`
"""

import ast
import base64
import enum
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

_KINDS = ("dimension", "dtype", "array", "key", "member", "fields")


class NotRecordableError(Exception):
  """A program cannot be written down; the message says what in it cannot."""


def encode(value: Any) -> Any:
  """Returns a parameter as JSON types.

  Raises:
    NotRecordableError: if the value is of a kind that the format does not have.
  """
  if value is None or (isinstance(value, (bool, int, float, str)) and not _is_member(value)):
    return value
  if isinstance(value, np.integer):
    return int(value)
  if export.is_symbolic_dim(value):
    return {"dimension": str(value)}
  name = type(value).__name__
  if _is_member(value):
    return {"member": [name, value.name]}
  if isinstance(value, tuple) and hasattr(value, "_fields"):
    if getattr(jax.lax, name, None) is not type(value):
      raise NotRecordableError(f"a parameter of type {name}")
    return {"fields": [name, {key: encode(item) for key, item in value._asdict().items()}]}
  if isinstance(value, (tuple, list)):
    return [encode(item) for item in value]
  if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
    return {"dtype": jnp.dtype(value).name}
  if isinstance(value, (np.ndarray, np.generic, jax.Array)):
    return _encode_array(value)
  raise NotRecordableError(f"a parameter of type {name}")


def decode(value: Any, batch: int | None) -> Any:
  """Returns the parameter that `encode` wrote.

  Args:
    value: JSON types.
    batch: the size of the batch that the program runs on; None if no size depends on it.
  """
  if isinstance(value, list):
    return tuple(decode(item, batch) for item in value)
  if not isinstance(value, dict):
    return value
  ((kind, content),) = value.items()
  match kind:
    case "dimension":
      return evaluate_dimension(content, batch)
    case "dtype":
      return jnp.dtype(content)
    case "array":
      dtype, shape, data = content
      return np.frombuffer(base64.b64decode(data), jnp.dtype(dtype)).reshape(shape)
    case "key":
      return jax.random.wrap_key_data(decode(content[1], batch), impl=content[0])
    case "member":
      return getattr(jax.lax, content[0])[content[1]]
    case "fields":
      fields = {name: decode(item, batch) for name, item in content[1].items()}
      return getattr(jax.lax, content[0])(**fields)
  raise ValueError(f"unknown kind of value {kind!r}: the known ones are {', '.join(_KINDS)}")


def evaluate_dimension(text: str, batch: int | None) -> int:
  """Returns the size that a text such as "floordiv(batch + -1, 2)" is for one size of the batch.

  Raises:
    ValueError: if the text is no such expression.
  """

  def of(node: ast.expr) -> int:
    match node:
      case ast.Constant(value=int(number)):
        return number
      case ast.Name(id="batch") if batch is not None:
        return batch
      case ast.UnaryOp(op=ast.USub(), operand=operand):
        return -of(operand)
      case ast.BinOp(left=left, op=ast.Add(), right=right):
        return of(left) + of(right)
      case ast.BinOp(left=left, op=ast.Sub(), right=right):
        return of(left) - of(right)
      case ast.BinOp(left=left, op=ast.Mult(), right=right):
        return of(left) * of(right)
      case ast.BinOp(left=left, op=ast.Pow(), right=right):
        return of(left) ** of(right)
      case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _CALLS:
        return _CALLS[name](of(left), of(right))
    raise ValueError(f"{text!r} is no size: sizes are polynomials of the batch")

  # The texts write powers as in "batch^2".
  return of(ast.parse(text.replace("^", "**"), mode="eval").body)


_CALLS = {
  "floordiv": lambda a, b: a // b,
  "mod": lambda a, b: a % b,
  "max": max,
  "min": min,
}


def _encode_array(value: Any) -> Any:
  if isinstance(value, jax.core.Tracer):
    raise NotRecordableError("a value that is only known while JAX traces")
  if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    data = np.asarray(jax.random.key_data(value))
    return {"key": [str(jax.random.key_impl(value)), _encode_array(data)]}
  array = np.asarray(value)
  data = base64.b64encode(array.tobytes()).decode()
  return {"array": [array.dtype.name, list(array.shape), data]}


def _is_member(value: Any) -> bool:
  return isinstance(value, enum.Enum) and getattr(jax.lax, type(value).__name__, None) is type(
    value
  )
