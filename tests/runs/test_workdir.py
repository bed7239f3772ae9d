"""Tests of the directory of a run: the files that remain when a process ends too soon."""

import os
import signal
import subprocess
import sys

import pytest

from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.workdir import Status
from gatprune_jax.runtime.whole_files import whole_file

KILLED_AS_IT_WRITES = """
import os, signal, sys
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
from gatprune_jax.runs import workdir as runs
with runs.claim(sys.argv[1], "train", {"seed": 0}):
  pass
"""


def test_a_process_killed_as_it_claims_a_directory_leaves_it_free(tmp_path):
  path = str(tmp_path / "run")
  done = subprocess.run([sys.executable, "-c", KILLED_AS_IT_WRITES, path], check=False)
  assert done.returncode == -signal.SIGKILL
  assert "config.json.partial" in os.listdir(path)
  assert runs.inspect(path, "train", {"seed": 0}) == Status.NEW
  with runs.claim(path, "train", {"seed": 0}):
    assert os.listdir(path).count("config.json") == 1
  assert runs.inspect(path, "train", {"seed": 0}) == Status.UNFINISHED


def test_a_file_that_cannot_be_written_is_absent(tmp_path):
  path = str(tmp_path / "result.json")
  with pytest.raises(TypeError, match="not JSON serializable"):
    runs.write_json(path, {"bad": object()})

  def fail():
    with whole_file(path) as file:
      file.write(b"half")
      raise OSError("no space")

  with pytest.raises(OSError, match="no space"):
    fail()
  assert os.listdir(tmp_path) == []
