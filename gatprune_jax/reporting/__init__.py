"""The report of a finished run: one HTML file that shows what was found, and how.

Names that need the libraries for drawing and templates are imported when they are first used,
because that import takes most of a second, and a run needs them at its end.
"""

import importlib
from typing import Any

from gatprune_jax.reporting.explanation import (
  EXPLANATION,
  Explanation,
  explain,
  write_explanation,
)
from gatprune_jax.reporting.record import API, COMPARE, PRUNE, REPORT, read_run

# {name that is imported when it is first used: the module that defines it}.
_LATER = {
  "complete_report": "page",
  "sentences": "sections.result",
  "write_page": "page",
  "write_report": "page",
}

__all__ = [
  "API",
  "COMPARE",
  "EXPLANATION",
  "PRUNE",
  "REPORT",
  "Explanation",
  "complete_report",
  "explain",
  "read_run",
  "sentences",
  "write_explanation",
  "write_page",
  "write_report",
]


def __getattr__(name: str) -> Any:
  """Imports a name of `_LATER` when it is first used."""
  if name in _LATER:
    return getattr(importlib.import_module(f"gatprune_jax.reporting.{_LATER[name]}"), name)
  raise AttributeError(f"module 'gatprune_jax.reporting' has no attribute {name!r}")
