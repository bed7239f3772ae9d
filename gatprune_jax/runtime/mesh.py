"""All devices of all processes as one mesh: arrays are replicated on it, or shared out over it.

Masks and candidates are shared out by `jax.shard_map` (see `maps`), so that every device runs the
same program as a single device would. The batches of data-parallel training are shared out by a
sharding constraint, so that everything computed over a batch, statistics too, is computed over the
whole batch. With a single device there is nothing to share out, and most functions here return what
they are given. Arrays that do not come from these functions are on a process's first device only.
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
  """Returns the number of devices of all processes together."""
  return jax.device_count()


@functools.cache
def _mesh() -> Mesh:
  """Returns a mesh with one axis, on which the devices of a process follow each other."""
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  # Auto is needed, because JAX refuses a gather from an array that is sharded on an explicit axis.
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def everywhere() -> Sharding:
  """Returns the sharding of an array that every device has a copy of."""
  return _sharding(jax.P())


def shares() -> Sharding:
  """Returns the sharding of an array whose leading axis is shared out over all devices.

  The length of that axis must be a multiple of the number of devices.
  """
  return _sharding(jax.P(AXIS))


def _sharding(spec: jax.P) -> Sharding:
  if num_devices() == 1:
    return SingleDeviceSharding(jax.devices()[0])
  return NamedSharding(_mesh(), spec)


def share(num: int) -> int:
  """Returns how many of `num` rows each device has, counting rows that fill up the last share."""
  return -(-num // num_devices())


def padded_rows(num: int) -> np.ndarray:
  """Returns indices 0 to num - 1, then from 0 again, up to a multiple of the number of devices."""
  return np.arange(share(num) * num_devices()) % num


def replicate(tree: Any) -> Any:
  """Copies arrays that all processes have to every device."""
  return jax.tree.map(lambda leaf: _put(leaf, everywhere()), tree)


def share_out(tree: Any) -> Any:
  """Shares out the rows of arrays that all processes have, equally over all devices.

  The first rows fill up the last share.
  """

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
  # This is not device_put, because that compares the values of all processes.
  return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def local(tree: Any) -> Any:
  """Returns the copies that this process's first device has of replicated arrays."""
  if num_devices() == 1:
    return tree
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def to_host(tree: Any) -> Any:
  """Returns NumPy arrays with all values of arrays of any sharding.

  All processes must call this together, because it may gather values of other processes.
  """

  def fetch(leaf):
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
      leaf = _gather()(leaf)
    return np.asarray(leaf)

  return jax.tree.map(fetch, tree)


@functools.cache
def _gather() -> Callable[[jax.Array], jax.Array]:
  return jax.jit(lambda leaf: leaf, out_shardings=everywhere())


def agree(tree: Any) -> Any:
  """Returns on every process the first process's values of these arrays, as NumPy arrays."""
  if jax.process_count() == 1:
    return tree
  # All arrays go through one call. The collectives of several calls could run in another order on
  # another device, and then wait for each other.
  first = jax.jit(lambda tree: jax.tree.map(lambda rows: rows[0], tree), out_shardings=everywhere())
  return to_host(first(jax.tree.map(_of_every_device, tree)))


def anywhere(flag: bool) -> bool:
  """Returns whether a flag is set in any process; all processes must call this together."""
  if jax.process_count() == 1:
    return flag
  return bool(to_host(_of_every_device(np.asarray(flag))).any())


def _of_every_device(leaf: Any) -> jax.Array:
  """Returns `[devices, ...]`: in the rows of a process's devices, the value of that process."""
  host = np.asarray(leaf)[None]
  shape = (num_devices(), *host.shape[1:])
  return jax.make_array_from_callback(shape, shares(), lambda index: host)


def on_each_device(fn: Callable[..., Any], rows_spec: jax.P, out_specs: Any) -> Callable[..., Any]:
  """Returns a function that runs `fn(rows, *same)` on every device; for use under jit.

  Args:
    fn: the function for one device.
    rows_spec: the partition of the leaves of `rows`; `same` are replicated arrays.
    out_specs: the partition of what the function returns.
  """
  if num_devices() == 1:
    return fn

  def call(rows, *same):
    specs = (rows_spec, *(jax.P() for _ in same))
    return jax.shard_map(
      fn, mesh=_mesh(), in_specs=specs, out_specs=out_specs, check_vma=False
    )(rows, *same)  # fmt: skip

  return call


def device_index() -> jax.Array | int:
  """Returns the index of this device among all devices, from 0; for use in `on_each_device`."""
  return 0 if num_devices() == 1 else jax.lax.axis_index(AXIS)


def gather_rows(tree: Any) -> Any:
  """Copies the rows of all devices, in order, to every device; for use in `on_each_device`."""
  return tree if num_devices() == 1 else jax.lax.all_gather(tree, AXIS, tiled=True)


def as_batch(tree: Any, num: int) -> Any:
  """Returns the first `num` rows of a batch in `shares`, still shared out; for use under jit."""
  if num_devices() == 1:
    return tree
  cut = lambda leaf: jax.lax.with_sharding_constraint(leaf[:num], shares())
  return jax.tree.map(cut, tree)


def own_columns(num: int) -> np.ndarray:
  """Returns which of `num` rows in `shares` are on this process's devices, as sorted indices."""
  if num_devices() == 1:
    return np.arange(num)
  indices = shares().addressable_devices_indices_map((num,)).values()
  return np.sort(np.concatenate([np.arange(num)[index] for index in indices]))


def assemble(sharding: Sharding, own: np.ndarray | jax.Array) -> jax.Array:
  """Makes an array of all devices out of the rows that each process has.

  Args:
    sharding: `shares()` or `everywhere()`.
    own: this process's rows, see `own_columns`; all rows where the array is replicated.
  """
  if sharding.is_fully_addressable:
    return jax.device_put(own, sharding)
  return jax.make_array_from_process_local_data(sharding, own)
