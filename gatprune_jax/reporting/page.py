"""Makes the page: one HTML file that refers to no other file."""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any, NamedTuple

from gatprune_jax.reporting.parts import Part
from gatprune_jax.reporting.record import API, COMPARE, PRUNE, REPORT, Run, read_run
from gatprune_jax.reporting.sections.beyond_magnitude import beyond_magnitude
from gatprune_jax.reporting.sections.front import by_method, front
from gatprune_jax.reporting.sections.learning import learning
from gatprune_jax.reporting.sections.loading import loading
from gatprune_jax.reporting.sections.network import network
from gatprune_jax.reporting.sections.result import methods, result
from gatprune_jax.reporting.sections.settings import settings, versions
from gatprune_jax.reporting.sections.widths import widths
from gatprune_jax.reporting.templates import environment
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.runtime.whole_files import whole_file

# The sections in order. To add one, write a function in `sections` and add one entry. The function
# takes a run and the start of the ids of its figures; a run for which it returns nothing has no
# such section.
SECTIONS: dict[str, tuple[str, Callable[[Run, str], list[Part]]]] = {
  "result": ("Result", result),
  "front": ("Accuracy against cost", front),
  "methods": ("All methods", methods),
  "recovery": ("Before and after fine-tuning", by_method),
  "widths": ("Width of every group", widths),
  "network": ("The network, and what was removed", network),
  "magnitude": ("What was found beyond magnitude", beyond_magnitude),
  "learning": ("Learning curves", learning),
  "settings": ("Settings", settings),
  "versions": ("Versions", versions),
  "loading": ("How to load it", loading),
}


class Section(NamedTuple):
  """A section of the page."""

  name: str  # its id
  title: str
  of_runs: Sequence[tuple[str, list[Part]]]  # path and parts of the runs that have it


def write_report(workdir: str, defaults: Mapping[str, Any]) -> str:
  """Writes the report of a finished run to its workdir, and returns the path.

  Args:
    workdir: the workdir of `experiments.prune`, of `experiments.compare` or of `prune`.
    defaults: the run's settings with all fields at their defaults, of JSON types.

  Raises:
    InputError: where the directory holds no such run, or a file of it is damaged.
  """
  path = os.path.join(workdir, REPORT)
  if is_first():
    write_page(path, [read_run(workdir, defaults)])
  return path


def complete_report(workdir: str, defaults: Mapping[str, Any]) -> None:
  """Writes the report of a finished run that has none.

  The result comes before the report, so that no defect of a report can cost the result. A process
  that is killed between them leaves a finished run without its report.

  Args:
    workdir: as in `write_report`.
    defaults: as in `write_report`.

  Raises:
    InputError: as in `write_report`.
  """
  if is_first() and not os.path.exists(os.path.join(workdir, REPORT)):
    write_report(workdir, defaults)


def write_page(path: str, runs: Sequence[Run]) -> None:
  """Writes a page with one run, or with several side by side; it is complete or absent."""
  content = render(runs)
  with whole_file(path) as file:
    file.write(content.encode())


def render(runs: Sequence[Run]) -> str:
  """Returns the page with one run, or with several side by side."""
  found = []
  for name, (title, make) in SECTIONS.items():
    of_runs = [(run.path, make(run, f"{name}-{place}")) for place, run in enumerate(runs)]
    if filled := [(path, parts) for path, parts in of_runs if parts]:
      found.append(Section(name, title, filled))
  templates = environment()
  templates.filters["unbroken"] = _unbroken
  title = _title(runs[0]) if len(runs) == 1 else f"{len(runs)} runs side by side"
  page = templates.get_template("report.html")
  return page.render(sections=found, title=title, num_runs=len(runs))


def _unbroken(text: str) -> str:
  """Returns a text whose lines do not break within "61.4 ± 1.8 %"."""
  space = "\N{NO-BREAK SPACE}"
  return text.replace(" ± ", f"{space}±{space}").replace(" %", f"{space}%")


def _title(run: Run) -> str:
  """Returns what a page with one run is called."""
  what = {COMPARE: "Comparison of pruning methods", PRUNE: "Pruned network", API: "Pruned network"}
  told = [what[run.experiment], *(run.config[name] for name in ("dataset",) if name in run.config)]
  return ", ".join(told)
