"""Tests of the shell commands on the pages for users: they run, or their options at least exist."""

import itertools
import json
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from tests.data.directories import write_tfds
from tests.experiments.mains import SMALL, environment
from tests.test_readme import PAGES

ROOT = Path(__file__).parents[1]
# Programs that need a network, a cluster, an account, or a terminal.
ELSEWHERE = {"cd", "eval", "gcloud", "git", "ssh-add", "tail"}
# Mains that take a config; the others have flags of their own.
WITH_CONFIG = {"compare", "fading", "fidelity", "gradient", "prune", "train"}
SLOW = pytest.mark.slow


def blocks(page):
  """Returns the blocks for a shell on a page, each a list of the words of its commands."""
  text = (ROOT / page).read_text(encoding="utf-8")
  return [list(commands(block)) for block in re.findall("```bash\n(.*?)```", text, re.DOTALL)]


def commands(block):
  """Yields the words of every command in a block for a shell."""
  for line in block.replace("\\\n", " ").splitlines():
    words = tuple(shlex.split(line, comments=True))
    while "&&" in words:
      place = words.index("&&")
      yield words[:place]
      words = words[place + 1 :]
    yield words


def experiment(words):
  """Returns (name of the main, its arguments) of a command, or None if it runs no experiment."""
  if words[0].startswith("launch/"):
    name, *arguments = words[words.index("--") + 1 :]
    return name, tuple(arguments)
  if words[1:2] == ("-m",) and words[2].startswith("experiments."):
    return words[2].removeprefix("experiments."), words[3:]
  return None


ALL = {page: list(itertools.chain(*blocks(page))) for page in PAGES}
EXPERIMENTS = sorted({
  each for found in ALL.values() for each in map(experiment, found) if each is not None
})  # fmt: skip
SCRIPTS = [words for found in ALL.values() for words in found if words[0].startswith("launch/")]
TESTS = [words[words.index("pytest") + 1 :] for found in ALL.values() for words in found
         if "pytest" in words]  # fmt: skip
INSTALLED = {
  extra
  for found in ALL.values()
  for words in found
  if "install" in words
  for requirement in words[words.index("install") + 1 :]
  for extra in re.findall(r"^\.\[(.*)\]$", requirement)
}


def test_every_command_is_one_that_a_test_knows():
  for page, found in ALL.items():
    for words in found:
      program = next(word for word in words if not re.match(r"[A-Z_]+=", word))
      known = (
        experiment(words)
        or program in ELSEWHERE
        or "pytest" in words
        or Path(program).name == "pip"
        or words[1:3] == ("-m", "venv")
      )
      assert known, f"{page}: no test knows what {shlex.join(words)} is"
  assert len(EXPERIMENTS) > 20
  assert len(SCRIPTS) == 3


def test_installed_extras_and_tests_exist():
  declared = (ROOT / "setup.py").read_text(encoding="utf-8")
  for extra in INSTALLED:
    assert f'"{extra}": [' in declared
  assert "test" in INSTALLED
  paths = [path for arguments in TESTS for path in arguments if not path.startswith("-")]
  assert paths
  for path in paths:
    assert (ROOT / path).exists()


# Every command is read in a fork of its own, because importing the mains takes seconds. A main with
# a config ends with `--describe_config` once every field is found and every value is checked.
READ = """
import importlib, json, os, sys
from absl import flags
import gatprune_jax.pruning, ml_collections, matplotlib
with_config, commands = json.load(sys.stdin)
for main, arguments in commands:
  sys.stdout.flush()
  child = os.fork()
  if not child:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
      module = importlib.import_module(f"experiments.{main}")
      sys.argv = [main, *arguments]
      if main in with_config:
        sys.argv.append("--describe_config")
        module.start(module.main)
      else:
        flags.FLAGS(sys.argv)
    except BaseException as end:
      print(repr(end), file=sys.stderr)
      os._exit(getattr(end, "code", 1) or 0)
    os._exit(0)
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def read(some):
  """Returns the exit codes of commands that are read and not run, and what they said."""
  done = subprocess.run(
    [sys.executable, "-c", READ], input=json.dumps([sorted(WITH_CONFIG), some]),
    env=environment(), cwd=ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  return [int(line) for line in done.stdout.split()], done.stderr


def test_every_flag_and_field_of_the_experiments_exists():
  wrong = [
    ("prune", ["--workdir=x", "--config.budgets.mac=0.3"]),
    ("compare", ["--wrkdir=x"]),
    ("bench", ["--outt=x"]),
    ("prune", ["--config=experiments/configs/cifar10_resnet20.py:cpus"]),
  ]
  codes, said = read([*EXPERIMENTS, *wrong])
  for (main, arguments), code in zip(EXPERIMENTS, codes, strict=False):
    assert code == 0, f"{main} {shlex.join(arguments)}: {said}"
  assert 0 not in codes[len(EXPERIMENTS) :]


@pytest.mark.parametrize("words", SCRIPTS, ids=lambda words: words[0])
def test_the_launch_scripts_take_their_options(words):
  if words[0] == "launch/tpu_pod.sh" and not (ROOT / ".git").exists():
    pytest.skip("not in a checkout, which the slice gets")
  place = words.index("--")
  done = subprocess.run(
    [*words[:place], "--dry_run", *words[place:]], cwd=ROOT, capture_output=True, text=True,
    check=False,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, "")
  name, arguments = experiment(words)
  assert f"experiments.{name}" in done.stdout
  for argument in arguments:
    if not argument.startswith("--workdir"):
      assert argument in done.stdout


def run_all(some, directory, *more):
  """Runs commands in their order, with places below a directory and a small network.

  Args:
    some: (name of the main, its arguments) of each.
    directory: stands for /tmp, and for the directories of data.
    *more: further arguments of those that take a config.
  """
  for main, arguments in some:
    placed = [
      re.sub(r"\bTFDS$", str(directory), each.replace("/tmp/", f"{directory}/"))
      for each in arguments
    ]
    small = more if main in WITH_CONFIG else ()
    done = subprocess.run(
      [sys.executable, "-m", f"experiments.{main}", *placed, *small], env=environment(1), cwd=ROOT,
      capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{main} {shlex.join(placed)}: {done.stderr}"


SHORT = (*SMALL, "--config.compare.seeds=(0,)", "--config.compare.searches=()")
DIGITS, CIFAR, _, TABLES = (
  [experiment(words) for words in block] for block in blocks("experiments/README.md")
)


@pytest.mark.long
def test_the_first_commands_run(tmp_path):
  # The dense network of the first command is pruned by the second.
  run_all(DIGITS[:2], tmp_path, *SHORT)
  assert (tmp_path / "run" / "report.html").exists()
  run_all(TABLES[:1], tmp_path)


@SLOW
def test_the_other_commands_on_digits_run(tmp_path):
  readme = [each for each in map(experiment, ALL["README.md"]) if each is not None]
  assert [main for main, _ in readme] == ["prune"]
  run_all([*readme, *DIGITS[2:]], tmp_path, *SHORT, "--config.search.updates=2")


@SLOW
def test_the_commands_on_cifar_run_as_their_small_variant(tmp_path):
  write_tfds("cifar10", tmp_path, (120, 30), num_classes=10)
  local = [
    (main, [re.sub(r"(--config=.*\.py)$", r"\1:runlocal", each) for each in arguments])
    for main, arguments in CIFAR
  ]
  run_all(local, tmp_path, "--config.model.name=resnet8")
