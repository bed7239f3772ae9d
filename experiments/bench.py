"""Measures speed as ratios within one run: `python -m experiments.bench --out=bench.json`.

Prints each ratio when it is measured and a table at the end, and writes the same rows as JSON. The
functions that a row compares are mostly called in turn, so that a busy machine slows all of them
alike. A new measurement is a function in `BENCHMARKS` of `experiments.benchmarks`. A benchmark is
skipped if the library that it compares with is not installed; `--peers` says what to install.
"""

from collections.abc import Iterator
import os
import sys

from absl import app, flags, logging
import jax

from experiments.benchmarks import BENCHMARKS, Measurement, Skipped, overview
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import benchmark_table
from gatprune_jax.runtime import cores

_OUT = flags.DEFINE_string("out", None, "File for the rows as JSON; it must not exist yet.")
_ONLY = flags.DEFINE_list("only", None, "Names of the benchmarks to run; all unless given.")
_PEERS = flags.DEFINE_bool("peers", False, "Lists the libraries measured against, and ends.")


def main(argv: list[str]) -> None:
  """Checks the flags, runs the benchmarks, and writes their rows."""
  if _PEERS.value:
    print(overview())
    return
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  unknown = set(_ONLY.value or ()) - BENCHMARKS.keys()
  problem = None
  if len(argv) > 1:
    problem = f"argument {argv[1]!r} is not a flag: use --out=FILE or --only=NAME,NAME"
  elif not _OUT.value or os.path.exists(_OUT.value):
    problem = f"--out is {_OUT.value}: name a file that does not exist yet"
  elif not os.access(os.path.dirname(_OUT.value) or ".", os.W_OK):
    problem = f"--out is {_OUT.value}: name a file in a directory that can be written"
  elif unknown:
    problem = f"--only names {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}"
  if problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)
  cores.make_devices()
  rows = []
  for name in _ONLY.value or BENCHMARKS:
    for row in rows_of(name):
      rows.append(row)
      print(f"{row.name}: {row.ratio:.3g} ({row.reference})", file=sys.stderr)
  device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores"
  print(f"{device}\n\n{benchmark_table(rows)}")
  content = {"device": device, "versions": runs.versions(), "rows": [r._asdict() for r in rows]}
  runs.write_json(_OUT.value, content)


def rows_of(name: str) -> Iterator[Measurement]:
  """Yields the rows of one benchmark; a skipped benchmark only prints the reason."""
  try:
    yield from BENCHMARKS[name]()
  except Skipped as reason:
    print(f"{name} skipped: {reason}", file=sys.stderr)


if __name__ == "__main__":
  app.run(main)
