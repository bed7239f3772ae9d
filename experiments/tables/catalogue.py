"""The tables of RESULTS.md: for each the commands, their time, and how rows become markdown.

Commands are written as one types them in a shell at the root of the repository, where `$WORKDIR`
is a directory for the runs of all tables, and `$DATA` one with the data that some of them need:

* `cifar10_16.npz`: CIFAR-10 averaged to 16x16 pixels, as experiments/configs/cifar10_16_resnet8.py
  describes it;
* `tfds`: a directory of TFDS with `cifar10`;
* `cifar10_resnet20.th`: akamaster's weights.
"""

from collections.abc import Callable
import json
import os
from typing import Any, NamedTuple

import numpy as np

from gatprune_jax.runs.report import CompareRow, comparison_over_seeds, markdown_table

PRINTED = "printed.md"  # what the last command of a table printed


class Table(NamedTuple):
  """A table of RESULTS.md; its runs are in `$WORKDIR/NAME`."""

  heading: str  # of the section that is added where the page does not have the table yet
  commands: tuple[str, ...]
  minutes: int | None  # what all commands took on two CPU cores; None: it was not measured
  rows: tuple[str, ...]  # files below `$WORKDIR/NAME` that are kept below results/NAME
  markdown: Callable[[str], str]  # directory with these files -> the table


def _read(*path: str) -> Any:
  with open(os.path.join(*path), encoding="utf-8") as file:
    return json.load(file)


def of_comparison(place: str) -> str:
  """Returns the tables of a finished `experiments.compare`."""
  rows = [CompareRow(**row) for row in _read(place, "compare.json")]
  return comparison_over_seeds(rows, finetuned=any(row.epochs for row in rows))


def as_printed(place: str) -> str:
  """Returns what the command printed."""
  with open(os.path.join(place, PRINTED), encoding="utf-8") as file:
    return file.read().strip()


_GRADIENT_SEEDS = (0, 1, 2)


def of_gradient(place: str) -> str:
  """Returns one table of the cosines of several runs of `experiments.gradient`."""
  results = [_read(place, f"seed{seed}", "result.json")["cosines"] for seed in _GRADIENT_SEEDS]
  shown = lambda values: f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
  body = [[name, *(shown(cosines[name]) for cosines in results)] for name in results[0]]
  return markdown_table(("estimate", *(f"seed {seed}" for seed in _GRADIENT_SEEDS)), body)


def of_files(place: str) -> str:
  """Returns the table of the benchmarks of exported files."""
  shown = lambda seconds: f"{1e3 * seconds:.3g} ms"
  body = [
    [row["name"], shown(row["seconds"]), shown(row["reference_seconds"]), f"{row['ratio']:.2f}",
     row["note"]]
    for row in _read(place, "rows.json")["rows"]
  ]  # fmt: skip
  headers = ("file", "its time", "dense file", "ratio", "MACs, size, largest relative difference")
  return markdown_table(headers, body)


def _comparison(heading: str, name: str, flags: str, minutes: int | None) -> Table:
  command = f"python -m experiments.compare --workdir=$WORKDIR/{name} {flags}"
  return Table(heading, (command,), minutes, ("compare.json",), of_comparison)


_DIGITS_20 = '"--config.compare.budgets=(0.2,)" --config.compare.finetune=False'
_THREE_BUDGETS = '"--config.compare.budgets=(0.06,0.12,0.25)"'
_CIFAR16 = (
  "--config=experiments/configs/cifar10_16_resnet8.py --config.data_dir=$DATA/cifar10_16.npz"
)
_TWENTY = ",".join(map(str, range(20)))

# The minutes of a comparison are its searches', by the stored rows; training comes on top of them.
TABLES: dict[str, Table] = {
  "digits_20": _comparison(
    "Digits, a fifth of the MACs, before fine-tuning", "digits_20", _DIGITS_20, 12
  ),
  "digits_three_budgets_finetuned": _comparison(
    "Digits at three budgets, after fine-tuning",
    "digits_three_budgets_finetuned",
    "--config.search.adaptation.steps=4 --config.search.chunk=1 \\\n"
    f"  --config.finetune.epochs=8 --config.finetune.learning_rate=0.01 {_THREE_BUDGETS}",
    68,
  ),
  "cifar10_cpu": _comparison(
    "CIFAR-10 (JPEG images), ResNet-20, half of the MACs",
    "cifar10_cpu",
    "--config=experiments/configs/cifar10_resnet20.py:cpu \\\n"
    "  --config.data_dir=$DATA/tfds --config.dense.weights=$DATA/cifar10_resnet20.th",
    36,
  ),
  "digits_collapse": Table(
    "Collapse",
    (
      "python -m experiments.compare --workdir=$WORKDIR/digits_collapse "
      f'"--config.compare.seeds=({_TWENTY})" \\\n'
      '  "--config.compare.budgets=(0.2,)" "--config.compare.searches=()" '
      "--config.compare.finetune=False",
      "python -m experiments.collapse $WORKDIR/digits_collapse",
    ),
    13,
    ("compare.json", PRINTED),
    as_printed,
  ),
  "digits_ablations": _comparison(
    "Ablations",
    "digits_ablations",
    "--config=experiments/configs/digits_ablations.py \\\n"
    '  "--config.compare.seeds=(0,1,2)"',
    21,
  ),
  "gradient": Table(
    "The gradient estimate",
    tuple(
      f"python -m experiments.gradient --workdir=$WORKDIR/gradient/seed{seed} "
      f"--config.budgets.macs=0.2 --config.seed={seed}"
      for seed in _GRADIENT_SEEDS
    ),
    None,
    tuple(f"seed{seed}/result.json" for seed in _GRADIENT_SEEDS),
    of_gradient,
  ),
  "cifar16_before": _comparison(
    "CIFAR-10 (JPEG, 16x16), ResNet-8, before any gradient step",
    "cifar16_before",
    f"\\\n  {_CIFAR16} \\\n"
    '  --config.compare.finetune=False "--config.compare.budgets=(0.5,0.25,0.12)" '
    "\"--config.compare.searches=('evolve_bits',)\" \\\n"
    "  --config.search.updates=54 --config.search.refinement=192 "
    "--config.search.adaptation.steps=0",
    81,
  ),
  "memory": Table(
    "Peak of the activations, against what XLA plans",
    ("python -m experiments.memory",),
    1,
    (PRINTED,),
    as_printed,
  ),
  "exported": Table(
    "Exported files",
    (
      "python -m experiments.bench --only=exported_onnx,exported_litert "
      "--out=$WORKDIR/exported/rows.json",
    ),
    None,
    ("rows.json",),
    of_files,
  ),
}  # fmt: skip
