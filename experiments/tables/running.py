"""Making a table: its commands, the rows that are kept, and the stamp."""

from collections.abc import Callable, Iterable
import json
import os
import shlex
import string
import subprocess
import sys
from typing import Any, NamedTuple

from experiments import configs
from experiments.tables.catalogue import Table
from experiments.tables.code import Project
from experiments.tables.markdown import PRINTED
from experiments.tables.page import Block, Stamp, read_blocks, with_block
from gatprune_jax.errors import InputError
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runtime.preemption import EXIT_CODE, Preempted
from gatprune_jax.runtime.whole_files import whole_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_APP = os.path.join("experiments", "common", "app.py")
_DIGITS = 6  # of numbers in the rows that are kept


class Places(NamedTuple):
  """Where tables are made, and where they go."""

  workdir: str | None  # directory of the runs; None where none are needed
  data: str | None = None  # directory of the data that some tables need
  page: str = os.path.join(ROOT, "experiments", "RESULTS.md")
  results: str = os.path.join(ROOT, "experiments", "results")  # directory of the rows


def arguments_of(command: str) -> list[str]:
  """Returns the arguments of a command that is written for a shell; variables stay as they are."""
  return shlex.split(command.replace("\\\n", " "))


def modules_of(table: Table, project: Project) -> list[str]:
  """Returns the dotted names of the modules that a table's commands run, and of their configs."""
  found = set()
  for command in table.commands:
    arguments = arguments_of(command)
    module = arguments[arguments.index("-m") + 1]
    files = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    found |= {module, *(f.partition(".py")[0].replace("/", ".") for f in files)}
    if not files and _APP in project.files([module]):
      found.add(configs.DEFAULT)
  return sorted(found)


def make(
  name: str, table: Table, places: Places, project: Project, asked: Callable[[], bool]
) -> None:
  """Runs the commands of a table that are missing, keeps its rows, and writes it to the page.

  Args:
    name: name of the table.
    table: its entry of the catalogue.
    places: where the runs are, and where rows and table go.
    project: the modules of the repository.
    asked: whether a signal has come.

  Raises:
    InputError: where a command fails, or where the table was begun with other code.
    Preempted: where a signal came; what is done is saved.
  """
  own = os.path.join(places.workdir, name)
  record = os.path.join(places.workdir, f"{name}.json")
  modules = modules_of(table, project)
  if os.path.exists(record):
    state = runs.read_json(record)
  else:
    # A run that another program began is of code that nobody noted.
    found = os.path.exists(own)
    stamp = Stamp(None, None, True) if found else stamp_of(modules, project)
    state = {**stamp._asdict(), "done": 0}
    os.makedirs(own, exist_ok=True)
    runs.write_json(record, state)
  stamp = Stamp(state["code"], state["commit"], state["earlier"])
  variables = {"WORKDIR": places.workdir, "DATA": places.data or "$DATA"}
  for command in table.commands[state["done"] :]:
    now = project.code_hash(modules)
    if not stamp.earlier and stamp.code != now:
      raise InputError(
        f"table {name} in {places.workdir} was begun with code {stamp.code}, and that of the "
        f"repository is {now}: give another --workdir, or check out {stamp.commit}"
      )
    filled = [string.Template(each).substitute(variables) for each in arguments_of(command)]
    printed = run([sys.executable, *filled[1:]], name, asked)
    with whole_file(os.path.join(own, PRINTED)) as file:
      file.write(printed)
    state["done"] += 1
    runs.write_json(record, state)
  keep_rows(table.rows, own, os.path.join(places.results, name))
  write_table(name, table, stamp, places)


def run(arguments: list[str], name: str, asked: Callable[[], bool]) -> bytes:
  """Runs a command at the root of the repository, and returns what it printed.

  A signal is passed on, so that the command can save its state.

  Args:
    arguments: the program and its arguments.
    name: name of the table, for what is said.
    asked: whether a signal has come.

  Raises:
    InputError: if the command fails.
    Preempted: if a signal came.
  """
  # A session of its own keeps the terminal from sending the command the same signal once more.
  with subprocess.Popen(
    arguments, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
  ) as process:
    passed_on = False
    while True:
      try:
        printed, _ = process.communicate(timeout=0.5)
        break
      except subprocess.TimeoutExpired:
        if asked() and not passed_on:
          process.terminate()
          passed_on = True
  if process.returncode and (asked() or process.returncode == EXIT_CODE):
    raise Preempted(f"stopped in table {name}")
  if process.returncode:
    raise InputError(
      f"table {name}: {shlex.join(arguments)} ended with code {process.returncode}, for the reason "
      "that it gave above: the same command goes on from there"
    )
  return printed


def stamp_of(modules: Iterable[str], project: Project) -> Stamp:
  """Returns the stamp of tables that the code in the repository makes by these modules."""
  git = ["git", "-C", ROOT]
  commit = _output([*git, "rev-parse", "--short=10", "HEAD"]) or "unknown"
  changed = _output([*git, "status", "--porcelain", "--", *project.files(modules)])
  return Stamp(project.code_hash(modules), f"{commit}{' with changes' * bool(changed)}", False)


def _output(arguments: list[str]) -> str:
  """Returns what a program prints, or nothing where it fails or is not installed."""
  try:
    return subprocess.run(arguments, capture_output=True, text=True).stdout.strip()
  except OSError:
    return ""


def keep_rows(names: Iterable[str], source: str, target: str) -> None:
  """Copies files of rows, numbers in JSON rounded to six places.

  Args:
    names: paths of the files in both directories.
    source: directory of the run.
    target: directory that keeps the rows.
  """
  for name in names:
    out = os.path.join(target, name)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(os.path.join(source, name), encoding="utf-8") as file:
      content = file.read()
    if name.endswith(".json"):
      runs.write_json(out, _rounded(json.loads(content)))
    else:
      with whole_file(out) as file:
        file.write(content.encode())


def _rounded(content: Any) -> Any:
  if isinstance(content, dict):
    return {key: _rounded(value) for key, value in content.items()}
  if isinstance(content, list):
    return [_rounded(value) for value in content]
  return round(content, _DIGITS) if isinstance(content, float) else content


def write_table(name: str, table: Table, stamp: Stamp, places: Places) -> None:
  """Makes a table from the rows that are kept, and writes it to the page."""
  made = table.markdown(os.path.join(places.results, name))
  block = Block(stamp, "\n".join(table.commands), made)
  with open(places.page, encoding="utf-8") as file:
    page = file.read()
  with whole_file(places.page) as file:
    file.write(with_block(page, name, table.heading, block).encode())


def outdated(tables: dict[str, Table], page: str, project: Project) -> dict[str, str]:
  """Returns {table: hash of its code in the repository} of those whose stamps have another one.

  Args:
    tables: entries of the catalogue.
    page: text of the page.
    project: the modules of the repository.
  """
  stamped = {name: block for name, block in read_blocks(page).items() if not block.stamp.earlier}
  now = {name: project.code_hash(modules_of(tables[name], project)) for name in stamped}
  return {name: now[name] for name, block in stamped.items() if block.stamp.code != now[name]}
