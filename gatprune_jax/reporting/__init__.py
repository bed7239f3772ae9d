"""The report of a finished run: one HTML file that shows what was found, and how."""

from gatprune_jax.reporting.explanation import NAME as EXPLANATION
from gatprune_jax.reporting.explanation import Explanation, explain, write_explanation
from gatprune_jax.reporting.page import NAME as REPORT
from gatprune_jax.reporting.page import write_page, write_report
from gatprune_jax.reporting.record import API, COMPARE, PRUNE, read_run

__all__ = [
  "API",
  "COMPARE",
  "EXPLANATION",
  "PRUNE",
  "REPORT",
  "Explanation",
  "explain",
  "read_run",
  "write_explanation",
  "write_page",
  "write_report",
]
