"""Makes the report of finished runs again: `python -m experiments.report WORKDIR...`.

The report of one workdir is written to its `report.html`, as `experiments.prune`,
`experiments.compare` and `gatprune_jax.prune` do at their end. With several workdirs the page shows
the runs side by side, and `--page=FILE` says where it is written.
"""

import os
import sys
from typing import Any

from absl import app, flags, logging

from experiments.common.config_tree import as_json
from experiments.common.settings import Settings
from gatprune_jax import InputError
from gatprune_jax.pruning import default_config
from gatprune_jax.reporting import API, REPORT, read_run, write_page
from gatprune_jax.runs.workdir import read_experiment

_PAGE = flags.DEFINE_string("page", None, "File of the page; needed for several workdirs.")


def main(argv: list[str]) -> None:
  """Writes the page, and prints where it is."""
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  try:
    print(f"The report is in {make(argv[1:], _PAGE.value)}.")
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  except OSError as error:
    print(f"error: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
    sys.exit(1)


def make(workdirs: list[str], out: str | None) -> str:
  """Writes the page with the given runs, and returns its path.

  Args:
    workdirs: one workdir, or several.
    out: path of the page; None: `report.html` in the one workdir.

  Raises:
    InputError: where a workdir is not that of a finished run, or it is not said where to write.
  """
  if not workdirs:
    raise InputError("no workdirs given: name those of finished runs")
  if len(workdirs) > 1 and out is None:
    raise InputError(
      f"{len(workdirs)} workdirs are given, and no file for their page: add --page=FILE"
    )
  runs = [read_run(path, defaults_of(path)) for path in workdirs]
  out = out or os.path.join(workdirs[0], REPORT)
  write_page(out, runs)
  return out


def defaults_of(workdir: str) -> dict[str, Any]:
  """Returns the settings at their defaults of the program whose run is in a workdir."""
  return default_config() if read_experiment(workdir) == API else as_json(Settings())


if __name__ == "__main__":
  app.run(main)
