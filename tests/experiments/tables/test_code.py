"""Tests of which code a program depends on, and of its hash."""

import os
import subprocess
import sys

import pytest

from experiments.tables.code import Project, statements
from experiments.tables.running import ROOT
from tests.experiments.mains import RESNET, environment

FILES = {
  "experiments/__init__.py": "",
  "experiments/main.py": "from gatprune_jax.search import find\nimport gatprune_jax as gp\n"
  "def main():\n  from gatprune_jax import inner\n  return find, gp.later, inner\n",
  "gatprune_jax/__init__.py": "from gatprune_jax.other import unused\n_LATER = {'later': 'lazy'}\n",
  "gatprune_jax/lazy.py": "later = 1\n",
  "gatprune_jax/inner.py": "import importlib\nmake = importlib.import_module('x.' + 'named')\n",
  "gatprune_jax/named.py": "",
  "gatprune_jax/other.py": "unused = 2\n",
  "gatprune_jax/search/__init__.py": "from gatprune_jax.search.loop import run as find\n"
  "from gatprune_jax.search.unused import nothing\n",
  "gatprune_jax/search/loop.py": "from gatprune_jax.reporting import page\nrun = 3\n",
  "gatprune_jax/search/unused.py": "nothing = 4\n",
  "gatprune_jax/reporting.py": "page = 5\n",
}
NEEDED = {
  "experiments/main.py", "gatprune_jax/search/loop.py", "gatprune_jax/lazy.py",
  "gatprune_jax/inner.py", "gatprune_jax/named.py",
}  # fmt: skip


@pytest.fixture
def project(tmp_path):
  """Returns the root of a project of a few modules."""
  for path, source in FILES.items():
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
  return tmp_path


def test_imports_are_followed_to_what_defines_each_name(project):
  assert set(Project(str(project)).files(["experiments.main"])) == NEEDED


@pytest.mark.parametrize("path", sorted(FILES))
def test_the_hash_changes_with_the_code_that_is_needed_and_with_no_other(project, path):
  code_hash = lambda: Project(str(project)).code_hash(["experiments.main"])
  before = code_hash()
  with (project / path).open("a") as file:
    file.write("\n# A comment.\n\n")
  assert code_hash() == before
  with (project / path).open("a") as file:
    file.write("more = 6  # a statement\n")
  assert (code_hash() != before) == (path in NEEDED)


def test_statements_are_all_but_comments_and_docstrings():
  source = '''"""A module."""
x = "#1"  # one

def f():
  """Does something.

  At length.
  """
  text = """
  kept # this too
  """
  return text
'''
  assert statements(source) == (
    'x = "#1"\ndef f():\n  text = """\n  kept # this too\n  """\n  return text'
  )


RECORD = """
import importlib, sys
from absl import app
main, out = sys.argv[1:3]
del sys.argv[1:3]
module = importlib.import_module(f"experiments.{main}")
called = set()
def note(frame, event, _):
  # Importing a module runs its body, and the function that a package finds its names with.
  if event == "call" and frame.f_code.co_name not in ("<module>", "__getattr__"):
    called.add(frame.f_code.co_filename)
sys.setprofile(note)
try:
  getattr(module, "start", app.run)(module.main)
finally:
  sys.setprofile(None)
  open(out, "w").write("\\n".join(called))
"""


@pytest.mark.parametrize(
  ("main", "arguments"),
  [
    ("memory", ["--networks=resnet20:8", "--masks=1", "--batch=1"]),
    pytest.param(
      "compare", [*RESNET, "--config.compare.seeds=(0,)", "--config.compare.budgets=(0.5,)",
                  "--config.compare.searches=()"],
      marks=pytest.mark.slow,
    ),
  ],
)  # fmt: skip
def test_every_function_that_runs_is_in_the_code_that_counts(main, arguments, tmp_path):
  workdir = [] if main == "memory" else [f"--workdir={tmp_path / 'run'}"]
  done = subprocess.run(
    [sys.executable, "-c", RECORD, main, str(tmp_path / "called"), *workdir, *arguments],
    env=environment(1), cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  called = {
    os.path.relpath(path, ROOT)
    for path in (tmp_path / "called").read_text().splitlines()
    if path.startswith((os.path.join(ROOT, "gatprune_jax"), os.path.join(ROOT, "experiments")))
  }
  config = [] if main == "memory" else ["experiments.configs.digits_resnet8"]
  counted = Project(ROOT).files([f"experiments.{main}", *config])
  shown = {path for path in called if path.startswith("gatprune_jax/reporting")}
  assert len(called) > 10
  assert called - shown <= set(counted)
