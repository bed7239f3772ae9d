"""Tests of the compiled programs that are kept on the disk."""

import os
import subprocess
import sys

import jax
import pytest

from gatprune_jax import InputError
from gatprune_jax.runtime import compilation_cache
from gatprune_jax.runtime.compilation_cache import OFF, keep_programs

NAMES = (
  "jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_enable_compilation_cache",
  "jax_persistent_cache_min_compile_time_secs",
)  # fmt: skip

# Compiles six programs, and prints how many of them were found on the disk. The two arguments are
# the largest size of all programs, and the directory; "" stands for the user's own.
COMPILE = """
import sys, warnings
import jax, jax.numpy as jnp
from gatprune_jax.runtime import compilation_cache
warnings.filterwarnings("error", "Error .* persistent compilation cache entry")
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
compilation_cache._LARGEST = int(sys.argv[1])
compilation_cache.keep_programs(sys.argv[2] or None)
for power in range(6):
  jax.jit(lambda x: jnp.sin(x) ** power + power)(jax.device_put(1.0))
print(found.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def config():
  """Yields JAX's configuration without a cache, and restores it."""
  before = {name: getattr(jax.config, name) for name in NAMES}
  jax.config.update("jax_compilation_cache_dir", None)
  yield jax.config
  for name, value in before.items():
    jax.config.update(name, value)


def begin(home, largest=2**30, directory=""):
  """Starts a process that compiles, whose directories of caches are below `home`."""
  environment = {k: v for k, v in os.environ.items() if "CACHE" not in k}
  return subprocess.Popen(
    [sys.executable, "-c", COMPILE, str(largest), str(directory)], text=True,
    env={**environment, "HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip


def found_by(process):
  out, err = process.communicate(timeout=300)
  assert process.returncode == 0, err
  return int(out)


def programs(directory):
  return {path.name for path in directory.glob("*-cache")}


def test_a_later_process_finds_what_several_at_once_have_compiled(tmp_path):
  kept = tmp_path / ".cache" / "gatprune_jax"
  kept.mkdir(parents=True)
  # A process that was killed while it wrote leaves a program without the time of its last use.
  (kept / "killed-cache").write_bytes(b"half of it")
  for process in [begin(tmp_path) for _ in range(3)]:
    found_by(process)
  first = programs(kept)
  assert len(first) >= 6
  assert "killed-cache" not in first
  assert found_by(begin(tmp_path)) >= 6
  assert programs(kept) == first


def test_all_programs_together_keep_to_the_largest_size(tmp_path):
  assert found_by(begin(tmp_path, directory=tmp_path / "all")) == 0
  sizes = lambda name: [path.stat().st_size for path in (tmp_path / name).glob("*-cache")]
  largest = sum(sizes("all")) // 2
  assert found_by(begin(tmp_path, largest, tmp_path / "some")) == 0
  assert 1 <= len(sizes("some")) < len(sizes("all"))
  assert sum(sizes("some")) <= largest


def test_of_too_many_programs_those_used_last_stay(config, tmp_path, monkeypatch):
  for age, name in enumerate("abcde"):
    (tmp_path / f"{name}-cache").write_text("program")
    last_use = tmp_path / f"{name}-atime"
    last_use.write_text("time")
    os.utime(last_use, (1e9 - age, 1e9 - age))
  monkeypatch.setattr(compilation_cache, "_MOST", 3)
  keep_programs(str(tmp_path))
  left = {f"{name}-{kind}" for name in "abc" for kind in ("cache", "atime")}
  assert {path.name for path in tmp_path.glob("*-*")} == left


def test_where_programs_are_kept(config, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  keep_programs()
  assert config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "gatprune_jax")
  assert config.jax_compilation_cache_max_size == compilation_cache._LARGEST
  assert (tmp_path / ".cache" / "gatprune_jax").stat().st_mode & 0o077 == 0
  # What JAX is configured with stays, unless another directory is given.
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
  keep_programs()
  assert config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "gatprune_jax")
  keep_programs(str(tmp_path / "given"))
  assert config.jax_compilation_cache_dir == str(tmp_path / "given")
  config.update("jax_compilation_cache_dir", None)
  keep_programs()
  assert config.jax_compilation_cache_dir == str(tmp_path / "caches" / "gatprune_jax")
  keep_programs(OFF)
  assert not config.jax_enable_compilation_cache


def test_directories_that_cannot_be_written(config, tmp_path, monkeypatch, caplog):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match=r"cannot be written .*: give another directory, or 'off'"):
    keep_programs(str(tmp_path / "file" / "inner"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  keep_programs()
  assert "compiled programs are not kept" in caplog.text
  assert config.jax_compilation_cache_dir is None
