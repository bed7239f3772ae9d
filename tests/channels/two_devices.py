"""Trains masked and compact networks for three steps on two devices; run by `test_devices`.

Both devices see half of the batch. Their batch norms share statistics and their gradients are
averaged, so that the result must be that of one device with the whole batch.
"""

import functools

import equinox as eqx
from flax import linen as nn
import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
import numpy as np

import gatprune_jax as gp
from gatprune_jax.channels import compact_function, compact_variables
from tests.channels.laws import assert_same, random_mask
from tests.conftest import perturbed

DEVICES, STEPS, RATE = "devices", 3, 0.1
X = np.random.default_rng(0).standard_normal((8, 6, 6, 3)).astype(np.float32)


class LinenNet(nn.Module):
  @nn.compact
  def __call__(self, x, train=False, axis=None):
    for width in (6, 5):
      x = nn.Conv(width, (3, 3), use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=axis)(x))
    return nn.Dense(2)(x.mean((1, 2)))


class EquinoxNet(eqx.Module):
  convs: list[eqx.nn.Conv2d]
  norms: list[eqx.nn.BatchNorm]
  head: eqx.nn.Linear

  def __init__(self, key, axes):
    keys = jax.random.split(key, 3)
    self.convs = [eqx.nn.Conv2d(i, o, 3, key=k) for i, o, k in ((3, 6, keys[0]), (6, 5, keys[1]))]
    self.norms = [eqx.nn.BatchNorm(width, axes, mode="ema") for width in (6, 5)]
    self.head = eqx.nn.Linear(5, 2, key=keys[2])

  def __call__(self, x, state):
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x, state = norm(conv(x), state)
      x = jax.nn.relu(x)
    return self.head(x.mean((1, 2))), state


def linen():
  """Returns functions in eval mode, in train mode on two devices and on one, and the variables."""
  net = LinenNet()
  collections = lambda v: {"params": v["params"], "batch_stats": v["stats"]}

  def train(variables, x, axis):
    out = net.apply(collections(variables), x, train=True, axis=axis, mutable=["batch_stats"])
    return out[0], out[1]["batch_stats"]

  variables = perturbed(jax.jit(net.init)(jax.random.key(0), X))
  return (
    lambda v, x: net.apply(collections(v), x),
    functools.partial(train, axis=DEVICES),
    functools.partial(train, axis=None),
    {"params": variables["params"], "stats": variables["batch_stats"]},
  )


def equinox():
  """Returns what `linen` returns, for a network in Equinox."""

  def made(axes):
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0), axes)
    return *eqx.partition(model, eqx.is_array), state

  def run(variables, x, static):
    module = eqx.combine(variables["params"], static)
    over_batch = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}
    return jax.vmap(module, **over_batch)(x.transpose(0, 3, 1, 2), variables["stats"])

  params, static, state = made(("batch", DEVICES))
  params_alone, static_alone, _ = made("batch")

  def alone(variables, x):  # the names of the axes are in the structure of a module
    own = jax.tree.unflatten(jax.tree.structure(params_alone), jax.tree.leaves(variables["params"]))
    return run({**variables, "params": own}, x, static_alone)

  return (
    lambda v, x: run(v, x, eqx.nn.inference_mode(static))[0],
    functools.partial(run, static=static),
    alone,
    {"params": params, "stats": state},
  )


def trained(train, variables, x, average=lambda gradient: gradient):
  """Returns the variables after three steps of gradient descent on the mean square of the outputs.

  Args:
    train: (variables, x) -> (outputs, updated statistics).
    variables: a dict of "params" and "stats".
    x: the examples of this device.
    average: makes the mean of the devices' gradients of what JAX returns for one of them.
  """

  def loss(params, stats):
    outputs, stats = train({"params": params, "stats": stats}, x)
    return (outputs**2).mean(), stats

  params, stats = variables["params"], variables["stats"]
  for _ in range(STEPS):
    gradient, stats = jax.grad(loss, has_aux=True)(params, stats)
    params = jax.tree.map(lambda p, g: p - RATE * g, params, average(gradient))
  return {"params": params, "stats": stats}


def check(run, eval_fn, train, train_alone, variables):
  """Raises unless masked and compact networks on two devices end as the compact one does on one."""
  graph = gp.trace(eval_fn, variables, X)
  mask = random_mask(graph, np.random.default_rng(1))
  small = compact_variables(graph, variables, mask)
  masked = lambda v, x: gp.masked(graph, train)(v, mask, x)
  of_masked = run(masked, variables)
  of_compact = run(compact_function(graph, train, mask), small)
  alone = trained(compact_function(graph, train_alone, mask), small, X)
  for device in range(2):
    own = jax.tree.map(lambda a, device=device: a[device], (of_masked, of_compact))
    jax.tree.map(assert_same, compact_variables(graph, own[0], mask), alone)
    jax.tree.map(assert_same, own[1], alone)


def on_two_devices(train, variables):
  """Returns the variables of both devices after `trained` on half of the batch each, stacked."""

  # The gradient of what is the same on all devices is already the sum over them.
  average = lambda gradient: jax.tree.map(lambda g: g / 2, gradient)

  def of_device(variables, x):
    return jax.tree.map(lambda a: a[None], trained(train, variables, x, average))

  mesh = Mesh(np.array(jax.devices()), (DEVICES,))
  specs = {"in_specs": (P(), P(DEVICES)), "out_specs": P(DEVICES)}
  return jax.jit(jax.shard_map(of_device, mesh=mesh, **specs))(variables, X)


def on_two_rows(train, variables):
  """Does what `on_two_devices` does on one device, by `vmap` over an axis of the same name.

  The states of Equinox 0.13 refuse to be set within `jax.shard_map`, in a dense network too.
  """
  halves = X.reshape(2, -1, *X.shape[1:])
  average = lambda gradient: jax.lax.pmean(gradient, DEVICES)
  of_half = lambda variables, x: trained(train, variables, x, average)
  return jax.vmap(of_half, (None, 0), axis_name=DEVICES)(variables, halves)


if __name__ == "__main__":
  assert jax.device_count() == 2
  for make, run in ((linen, on_two_devices), (equinox, on_two_rows)):
    check(run, *make())
    print(make.__name__, "agrees")
