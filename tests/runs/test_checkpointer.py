"""Tests of checkpoints: states are restored bit for bit, and damaged states are never used."""

import functools
import os
import resource
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.runs import file_checkpointer
from gatprune_jax.runs.checkpoint import restore_variables, save_variables
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.runs.file_checkpointer import FileCheckpointer
from gatprune_jax.runtime.preemption import Preempted

CONFIG = {"seed": 0}


def state(number):
  """Returns a state with every kind of array that loops carry; `number` makes states differ."""
  return {
    "params": {
      "kernel": jnp.full((3, 4), number, jnp.float32) / 3,
      "half": jnp.ones(2, "bfloat16"),
    },
    "mask": jnp.arange(5) % 2 == 0,
    "step": jnp.asarray(number, jnp.int32),
    "momentum": (jnp.full(7, -number, jnp.float32), jnp.asarray(0.1, jnp.float32)),
  }


def checkpoints(path, keep=10, config=None, version="1", jax="0.10", **others):
  versions = {"gatprune_jax": version, "jax": jax}
  return FileCheckpointer(str(path), config or CONFIG, versions, keep, 1, **others)


def saved(path, *steps, **others):
  checkpointer = checkpoints(path, **others)
  for step in steps:
    checkpointer.save(step, state(step))
  checkpointer.wait()
  return checkpointer


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def newest(path):
  """Restores the newest state, checks it bit for bit, and returns its step."""
  step, restored = checkpoints(path).restore(state(0))
  assert_same(restored, state(step))
  return step


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """Returns a directory with the states after steps 1 and 2."""
  path = tmp_path_factory.mktemp("two") / "search"
  saved(path, 1, 2)
  return path


@pytest.fixture
def copy(two, tmp_path):
  """Returns a copy of the directory `two` that the test may damage."""
  return shutil.copytree(two, tmp_path / "search")


def files_of(place):
  return sorted(path for path in place.rglob("*") if path.is_file())


def test_what_is_saved_is_restored(two):
  assert newest(two) == 2
  assert checkpoints(two.parent / "nothing").restore(state(0)) is None


def test_a_loop_is_told_where_it_goes_on(two, tmp_path):
  told = []
  checkpoints(two, on_restore=told.append).restore(state(0))
  checkpoints(tmp_path / "nothing", on_restore=told.append).restore(state(0))
  assert told == [2, 0]


def test_the_copy_is_taken_before_the_memory_is_used_again(tmp_path):
  checkpointer, old = checkpoints(tmp_path), state(1)
  checkpointer.save(1, old)
  jax.jit(lambda tree: jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf + 1, tree),
          donate_argnums=0)(old)  # fmt: skip
  checkpointer.wait()
  assert newest(tmp_path) == 1


def test_every_flipped_bit_is_detected(two, tmp_path):
  rng = np.random.default_rng(0)
  files = [path.relative_to(two) for path in files_of(two / "2")]
  sizes = np.array([(two / name).stat().st_size for name in files])
  # The test damages a hundred places among all bytes, and one place in every file, because most
  # bytes are in few of the files.
  chosen = [*rng.choice(len(files), 100, p=sizes / sizes.sum()), *np.flatnonzero(sizes)]
  for number, index in enumerate(chosen):
    copy = shutil.copytree(two, tmp_path / str(number))
    path = copy / files[index]
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    assert newest(copy) == 1, path
    assert (copy / "2.damaged").is_dir()


def test_every_truncation_is_detected(two, tmp_path):
  rng = np.random.default_rng(1)
  files = [path.relative_to(two) for path in files_of(two / "2") if path.stat().st_size]
  for number in range(20):
    copy = shutil.copytree(two, tmp_path / str(number))
    path = copy / files[number % len(files)]
    os.truncate(path, rng.integers(path.stat().st_size))
    assert newest(copy) == 1, path


def test_every_missing_file_is_detected(two, tmp_path):
  for number, path in enumerate(files_of(two / "2")):
    copy = shutil.copytree(two, tmp_path / str(number))
    (copy / path.relative_to(two)).unlink()
    assert newest(copy) == 1, path


def test_a_file_too_many_is_detected(copy):
  (copy / "2" / "state" / "extra").write_text("")
  assert newest(copy) == 1


def test_an_empty_directory_does_not_count(copy):
  (copy / "9").mkdir()
  assert newest(copy) == 2
  assert (copy / "9.damaged").is_dir()
  # The next checkpoint has a number above all numbers in the directory.
  saved(copy, 3)
  assert (copy / "10").is_dir()
  assert newest(copy) == 3


def test_damage_is_told(copy, caplog):
  (copy / "2" / "manifest").unlink()
  checkpoints(copy).restore(state(0))
  (record,) = caplog.records
  assert f"checkpoint {copy / '2'} is damaged: its manifest cannot be read" in record.getMessage()
  assert f"{copy / '2'}.damaged" in record.getMessage()


def test_what_a_killed_process_was_writing_goes(copy):
  (copy / "3.partial" / "state").mkdir(parents=True)
  assert newest(copy) == 2
  assert sorted(os.listdir(copy)) == ["1", "2"]


def test_other_files_are_passed_over(copy):
  for name in (".nfs000123", "notes.txt", "lost+found"):
    (copy / name).write_bytes(b"")
  checkpointer = checkpoints(copy)
  step, restored = checkpointer.restore(state(0))
  checkpointer.finish(step + 1, lambda: restored)
  assert checkpoints(copy).restore(state(0))[0] == step + 1


def test_arrays_without_elements_are_restored(tmp_path):
  # Such arrays exist where a group has lost all of its channels.
  made = {"empty": np.zeros((3, 0, 2), np.float32), "full": np.arange(3.0)}
  checkpoints(tmp_path).finish(1, lambda: made)
  _, restored = checkpoints(tmp_path).restore(made)
  assert restored["empty"].shape == (3, 0, 2)
  np.testing.assert_array_equal(restored["full"], made["full"])
  with pytest.raises(gp.InputError, match=r"empty is absent there and float32\(3, 1, 2\) in what"):
    checkpoints(tmp_path).restore({**made, "empty": np.zeros((3, 1, 2), np.float32)})
  with pytest.raises(gp.InputError, match=r"full is float64\(3,\) there and float64\(0,\) in what"):
    checkpoints(tmp_path).restore({**made, "full": np.zeros(0)})


def test_only_valid_ones_count_among_those_kept(tmp_path):
  saved(tmp_path, 1, 2, 3, keep=2)
  assert sorted(os.listdir(tmp_path)) == ["2", "3"]
  (tmp_path / "3" / "manifest").write_text("no")
  saved(tmp_path, 4, keep=2)
  assert sorted(os.listdir(tmp_path)) == ["2", "3", "4"]  # 3 is damaged, so 2 and 4 are kept
  saved(tmp_path, 5, keep=2)
  assert sorted(os.listdir(tmp_path)) == ["4", "5"]


def test_an_earlier_step_is_saved_after_a_later_one(tmp_path):
  checkpointer = saved(tmp_path, 7, 8)
  checkpointer.save(3, state(3))
  checkpointer.wait()
  assert newest(tmp_path) == 3


def test_states_are_saved_when_it_is_time_and_when_asked_to_stop(tmp_path):
  stop = set()
  checkpointer = FileCheckpointer(
    str(tmp_path), CONFIG, {"gatprune_jax": "1", "jax": "0.10"}, 10, 3, lambda step: step in stop
  )
  for step in range(1, 8):
    checkpointer.maybe_save(step, functools.partial(state, step))
  checkpointer.wait()
  assert newest(tmp_path) == 6
  stop.add(8)
  with pytest.raises(Preempted, match="after step 8, which is saved in"):
    checkpointer.maybe_save(8, functools.partial(state, 8))
  assert newest(tmp_path) == 8


def test_the_last_state_is_saved_once(tmp_path):
  checkpointer = checkpoints(tmp_path)
  checkpointer.maybe_save(1, functools.partial(state, 1))
  checkpointer.finish(1, functools.partial(state, 1))
  assert os.listdir(tmp_path) == ["1"]
  checkpointer.finish(2, functools.partial(state, 2))
  assert newest(tmp_path) == 2


def test_time_adds_up_over_processes(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(file_checkpointer, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  first = checkpoints(tmp_path)
  now[0] += 5
  first.save(1, state(1))
  first.wait()
  now[0] += 1000  # time between the checkpoint and the next process does not count
  second = checkpoints(tmp_path)
  second.restore(state(0))
  now[0] += 2
  assert second.seconds == 7
  second.restore(state(0))  # the time before a roll-back still counts
  assert second.seconds == 7


def test_foreign_states_are_refused(two, monkeypatch):
  with pytest.raises(gp.InputError, match=r"of another config: \w{64} there, \w{64} in this run"):
    checkpoints(two, config={"seed": 1}).restore(state(0))
  with pytest.raises(gp.InputError, match="of another version: 1 there, 2 in this run"):
    checkpoints(two, version="2").restore(state(0))
  other = {**state(0), "step": jnp.zeros(2, jnp.int32)}
  with pytest.raises(gp.InputError, match=r"step is int32\(\) there and int32\(2,\) in what"):
    checkpoints(two).restore(other)
  with pytest.raises(gp.InputError, match=r"momentum/0 is float32.* there and absent in what"):
    checkpoints(two).restore({**state(0), "momentum": ()})
  monkeypatch.setattr("gatprune_jax.runs.checkpoint._FORMAT", 2)
  with pytest.raises(gp.InputError, match="has format 1, this version reads 2"):
    checkpoints(two).restore(state(0))


def test_another_library_is_told(two, caplog):
  step, _ = checkpoints(two, jax="0.11").restore(state(0))
  assert step == 2
  (record,) = caplog.records
  assert "was made with jax 0.10, this is 0.11: numbers may differ" in record.getMessage()


def test_a_full_disk_leaves_earlier_states_as_they_were(copy):
  checkpointer = checkpoints(copy)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # no file can grow beyond ten bytes
  try:
    checkpointer.save(3, state(3))
    with pytest.raises(gp.InputError, match=r"checkpoint .*/3 cannot be written: .* make room"):
      checkpointer.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert sorted(os.listdir(copy)) == ["1", "2"]
  assert newest(copy) == 2


def test_variables_are_refused_where_a_bit_has_changed(tmp_path):
  path = tmp_path / "dense"
  save_variables(str(path), state(1))
  assert_same(restore_variables(str(path), state(0)), state(1))
  with pytest.raises(gp.InputError, match="exists: choose another path"):
    save_variables(str(path), state(1))
  victim = max(files_of(path / "state"), key=lambda file: file.stat().st_size)
  content = bytearray(victim.read_bytes())
  content[len(content) // 2] ^= 1
  victim.write_bytes(content)
  with pytest.raises(gp.InputError, match=rf"is damaged: .*{victim.name} has changed"):
    restore_variables(str(path), state(0))


@pytest.mark.parametrize("field", ["updates", "steps", "keep"])
def test_checkpoints_that_save_nothing_are_refused(field):
  values = {"updates": 1, "steps": 1, "keep": 1, field: 0}
  with pytest.raises(gp.InputError, match=f"checkpoint {field} is 0"):
    CheckpointConfig(**values)
