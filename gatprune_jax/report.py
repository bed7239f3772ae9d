"""The comparison at the end of a run, as a table."""

from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate


class Row(NamedTuple):
  """One network: accuracies are shares of images in [0, 1]."""

  method: str
  macs: int  # multiply-adds of one example
  params: int
  macs_ratio: float  # of the dense network's
  params_ratio: float
  select_before: float  # batch norm recalibrated, weights untouched
  select_after: float  # after fine-tuning
  test_before: float
  test_after: float


def comparison(rows: Sequence[Row]) -> str:
  """The rows as a markdown table, accuracies in percent."""
  headers = [
    "method", "MACs", "params", "MACs ratio", "params ratio", "select before", "select after",
    "test before", "test after",
  ]  # fmt: skip
  body = [
    [row.method, f"{row.macs:,}", f"{row.params:,}", f"{row.macs_ratio:.4f}",
     f"{row.params_ratio:.4f}", *(f"{100 * accuracy:.1f}" for accuracy in row[5:])]
    for row in rows
  ]  # fmt: skip
  align = ["left"] + ["right"] * (len(headers) - 1)
  return tabulate(body, headers, "github", colalign=align, disable_numparse=True)
