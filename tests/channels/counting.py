"""An independent count of a function's multiply-adds, from its jaxpr at concrete shapes."""

import math

import jax


def count_macs(fn, *args):
  """Multiply-adds of convolutions and dot products for one example; args[1] holds the batch."""
  return _count(jax.make_jaxpr(fn)(*args).jaxpr) / args[1].shape[0]


def _count(jaxpr):
  total = 0
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        total += _count(inner) * eqn.params.get("length", 1)  # of a scan
    if eqn.primitive.name == "conv_general_dilated":
      kernel, dims = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
      per_output = math.prod(kernel[k] for k in dims.rhs_spec[1:])
      total += math.prod(eqn.outvars[0].aval.shape) * per_output
    elif eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      shape = eqn.invars[0].aval.shape
      total += math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[k] for k in contracted)
  return total
