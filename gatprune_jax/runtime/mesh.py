"""All devices of all processes as one: what is the same on each, and what is shared out.

Masks and candidates are shared out by `jax.shard_map` (see `maps`), so that every device runs the
program that a single one would; the batches of data-parallel training by a constraint, so that what
is computed over a batch, statistics too, is computed over all of it. With one device every function
here does nothing. Arrays outside these functions are on a process's first device alone.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
import numpy as np

AXIS = "devices"


def num_devices() -> int:
  """Of all processes."""
  return jax.device_count()


@functools.cache
def _mesh() -> Mesh:
  """One axis; the devices of a process follow each other."""
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  # Auto: a gather over a sharded array is refused on an explicit axis.
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def everywhere() -> Sharding:
  """A copy on every device."""
  return _sharding(jax.P())


def shares() -> Sharding:
  """The leading axis shared out; its length is a multiple of the number of devices."""
  return _sharding(jax.P(AXIS))


def _sharding(spec: jax.P) -> Sharding:
  if num_devices() == 1:
    return SingleDeviceSharding(jax.devices()[0])
  return NamedSharding(_mesh(), spec)


def share(num: int) -> int:
  """How many of so many rows a device has, the last ones perhaps repetitions."""
  return -(-num // num_devices())


def padded_rows(num: int) -> np.ndarray:
  """0 to num - 1, and then from 0 again up to a multiple of the number of devices."""
  return np.arange(share(num) * num_devices()) % num


def replicate(tree: Any) -> Any:
  """A copy on every device of arrays that all processes have."""
  return jax.tree.map(lambda leaf: _put(leaf, everywhere()), tree)


def share_out(tree: Any) -> Any:
  """The rows of arrays that all processes have, in equal shares; the first ones fill the last."""

  def put(leaf):
    rows = padded_rows(len(leaf))
    return _put(leaf if len(rows) == len(leaf) else to_host(leaf)[rows], shares())

  return jax.tree.map(put, tree)


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
  if sharding.is_fully_addressable:
    return jax.device_put(leaf, sharding)
  if getattr(leaf, "sharding", None) == sharding:
    return leaf
  if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    data = _put(jax.random.key_data(leaf), sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
  host = to_host(leaf)
  host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
  # Not device_put, which compares the values of all processes.
  return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def local(tree: Any) -> Any:
  """Replicated arrays as they are on this process's first device."""
  if num_devices() == 1:
    return tree
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def to_host(tree: Any) -> Any:
  """NumPy arrays with all values, whatever the arrays' sharding; all processes ask at once."""

  def fetch(leaf):
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
      leaf = _gather()(leaf)
    return np.asarray(leaf)

  return jax.tree.map(fetch, tree)


@functools.cache
def _gather() -> Callable[[jax.Array], jax.Array]:
  return jax.jit(lambda leaf: leaf, out_shardings=everywhere())


def agree(tree: Any) -> Any:
  """The values that the first process has of these arrays, NumPy arrays on every process."""
  if jax.process_count() == 1:
    return tree
  # In one call: collectives of calls that wait for each other could meet in another order.
  first = jax.jit(lambda tree: jax.tree.map(lambda rows: rows[0], tree), out_shardings=everywhere())
  return to_host(first(jax.tree.map(_of_every_device, tree)))


def anywhere(flag: bool) -> bool:
  """Whether a flag is set in any process; all processes ask at once."""
  if jax.process_count() == 1:
    return flag
  return bool(to_host(_of_every_device(np.asarray(flag))).any())


def _of_every_device(leaf: Any) -> jax.Array:
  """This process's value as the rows of its devices, `[devices, ...]`."""
  host = np.asarray(leaf)[None]
  shape = (num_devices(), *host.shape[1:])
  return jax.make_array_from_callback(shape, shares(), lambda index: host)


def on_each_device(fn: Callable[..., Any], rows_spec: jax.P, out_specs: Any) -> Callable[..., Any]:
  """`fn(rows, *same)` on every device: rows as the spec says, the rest replicated; under jit."""
  if num_devices() == 1:
    return fn

  def call(rows, *same):
    specs = (rows_spec, *(jax.P() for _ in same))
    return jax.shard_map(
      fn, mesh=_mesh(), in_specs=specs, out_specs=out_specs, check_vma=False
    )(rows, *same)  # fmt: skip

  return call


def device_index() -> jax.Array | int:
  """Which of all devices this one is, from 0; within `on_each_device`."""
  return 0 if num_devices() == 1 else jax.lax.axis_index(AXIS)


def gather_rows(tree: Any) -> Any:
  """The rows of all devices in their order, on each device; within `on_each_device`."""
  return tree if num_devices() == 1 else jax.lax.all_gather(tree, AXIS, tiled=True)


def as_batch(tree: Any, num: int) -> Any:
  """The first rows of a batch from `shares`, of any number, still shared out; under jit."""
  if num_devices() == 1:
    return tree
  cut = lambda leaf: jax.lax.with_sharding_constraint(leaf[:num], shares())
  return jax.tree.map(cut, tree)


def own_columns(num: int) -> np.ndarray:
  """Which of the rows of an array in `shares` are on this process's devices, in order."""
  if num_devices() == 1:
    return np.arange(num)
  indices = shares().addressable_devices_indices_map((num,)).values()
  return np.sort(np.concatenate([np.arange(num)[index] for index in indices]))


def assemble(sharding: Sharding, own: np.ndarray | jax.Array) -> jax.Array:
  """The array of which this process has its `own_columns`, or all where it is replicated."""
  if sharding.is_fully_addressable:
    return jax.device_put(own, sharding)
  return jax.make_array_from_process_local_data(sharding, own)
