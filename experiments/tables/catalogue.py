"""The tables of RESULTS.md: for each the commands, their time, the rows and how they are shown.

Commands are written as one types them in a shell at the root of the repository, where `$WORKDIR`
is a directory for the runs of all tables, and `$DATA` one with the data that some of them need:

* `cifar10_16.npz`: CIFAR-10 averaged to 16x16 pixels, as experiments/configs/cifar10_16_resnet8.py
  describes it;
* `tfds`: a directory of TFDS with `cifar10`;
* `cifar10_resnet20.th`: akamaster's weights.
"""

from collections.abc import Callable
from typing import NamedTuple

from experiments.tables.markdown import (
  GRADIENT_SEEDS,
  PRINTED,
  ROUNDS,
  ROUNDS_SEEDS,
  as_printed,
  of_comparison,
  of_files,
  of_gradient,
  of_rounds,
)


class Table(NamedTuple):
  """A table of RESULTS.md; its runs are in `$WORKDIR/NAME`."""

  heading: str  # of the section that is added where the page does not have the table yet
  commands: tuple[str, ...]
  minutes: int | None  # what all commands took on two CPU cores; None: it was not measured
  rows: tuple[str, ...]  # files below `$WORKDIR/NAME` that are kept below results/NAME
  markdown: Callable[[str], str]  # directory with these files -> the table


def _comparison(heading: str, name: str, flags: str, minutes: int | None) -> Table:
  command = f"python -m experiments.compare --workdir=$WORKDIR/{name} {flags}"
  return Table(heading, (command,), minutes, ("compare.json",), of_comparison)


def _rounds(
  heading: str, name: str, flags: str, epochs: int, masks: tuple[int, int], minutes: int | None
) -> Table:
  """Returns the table of pruning at once and in rounds.

  Args:
    heading: its heading.
    name: its name.
    flags: config, data and budget of all runs.
    epochs: total number of epochs of fine-tuning.
    masks: total number of updates and of exchanges of a search.
    minutes: time of all commands.
  """
  place = f"$WORKDIR/{name}"
  commands = []
  for seed in ROUNDS_SEEDS:
    of_seed = f"{flags} --config.seed={seed}"
    commands.append(f"python -m experiments.train --workdir={place}/dense-seed{seed} {of_seed}")
    for rounds in ROUNDS:
      updates, exchanges = (number // rounds for number in masks)
      commands.append(
        f"python -m experiments.prune --workdir={place}/rounds{rounds}-seed{seed} {of_seed} \\\n"
        f"  --config.dense.checkpoint={place}/dense-seed{seed} --config.rounds={rounds} "
        f"--config.finetune.epochs={epochs // rounds} \\\n"
        f"  --config.search.updates={updates} --config.search.refinement={exchanges} "
        "--config.search.shortlist=4 --config.search.finalists=1 \"--config.criteria=('l2',)\""
      )
  rows = tuple(
    f"rounds{rounds}-seed{seed}/result.json" for rounds in ROUNDS for seed in ROUNDS_SEEDS
  )
  return Table(heading, tuple(commands), minutes, rows, of_rounds)


_DIGITS_20 = '"--config.compare.budgets=(0.2,)" --config.compare.finetune=False'
_THREE_BUDGETS = '"--config.compare.budgets=(0.06,0.12,0.25)"'
_CIFAR16 = (
  "--config=experiments/configs/cifar10_16_resnet8.py --config.data_dir=$DATA/cifar10_16.npz"
)
_TWENTY = ",".join(map(str, range(20)))
_TWO_EPOCHS = _comparison(
  "CIFAR-10 (JPEG, 16x16), ResNet-8, after two epochs of fine-tuning",
  "cifar16_2_epochs",
  f"\\\n  {_CIFAR16} \\\n"
  "  --config.finetune.epochs=2 --config.compare.equal_cost=True \\\n"
  "  \"--config.compare.searches=('evolve_ratios','evolve_bits')\"",
  None,
)


def _longer(heading: str, name: str, flags: str) -> Table:
  """Returns the table of the masks of two epochs of fine-tuning, with another fine-tuning.

  Args:
    heading: its heading.
    name: its name.
    flags: the fine-tuning, and the methods.
  """
  flags = f"\\\n  {_CIFAR16} \\\n  --config.compare.start=$WORKDIR/cifar16_2_epochs {flags}"
  table = _comparison(heading, name, f"{flags} --config.compare.equal_cost=True", None)
  return table._replace(commands=(*_TWO_EPOCHS.commands, *table.commands))


def _fidelity(name: str, seeds: str, budget: float) -> Table:
  """Returns the table of what scores say, for some seeds and one budget."""
  return Table(
    f"What scores say about the accuracy after fine-tuning, at {budget} of the MACs",
    (
      f"python -m experiments.fidelity --workdir=$WORKDIR/{name} \\\n  {_CIFAR16} \\\n"
      f'  --config.images.select=10000 "--config.fidelity.seeds={seeds}" '
      f'"--config.fidelity.budgets=({budget},)"',
    ),
    None,
    (PRINTED,),
    as_printed,
  )


# The minutes of a comparison are its searches', by the stored rows; training comes on top of them.
TABLES: dict[str, Table] = {
  "digits_20": _comparison(
    "Digits, a fifth of the MACs, before fine-tuning", "digits_20", _DIGITS_20, 12
  ),
  "digits_three_budgets_finetuned": _comparison(
    "Digits at three budgets, after fine-tuning",
    "digits_three_budgets_finetuned",
    "--config.search.adaptation.steps=4 --config.search.chunk=1 \\\n"
    f"  --config.finetune.epochs=8 --config.finetune.learning_rate=0.01 {_THREE_BUDGETS} \\\n"
    '  "--config.compare.seeds=(0,1,2)"',
    None,
  ),
  "cifar10_cpu": _comparison(
    "CIFAR-10 (JPEG images), ResNet-20, half of the MACs",
    "cifar10_cpu",
    "--config=experiments/configs/cifar10_resnet20.py:cpu \\\n"
    "  --config.data_dir=$DATA/tfds --config.dense.weights=$DATA/cifar10_resnet20.th",
    36,
  ),
  "cifar10_before": _comparison(
    "CIFAR-10 (JPEG images), ResNet-20, half of the MACs, before any gradient step",
    "cifar10_before",
    "--config=experiments/configs/cifar10_resnet20.py:cpu \\\n"
    "  --config.data_dir=$DATA/tfds --config.dense.weights=$DATA/cifar10_resnet20.th "
    "--config.images.reward=640 \\\n"
    '  --config.compare.finetune=False "--config.compare.searches=()" '
    "--config.search.adaptation.steps=0 \\\n"
    "  --config.search.updates=24 --config.search.refinement=96",
    None,
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
      for seed in GRADIENT_SEEDS
    ),
    None,
    tuple(f"seed{seed}/result.json" for seed in GRADIENT_SEEDS),
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
  "cifar16_2_epochs": _TWO_EPOCHS,
  "cifar16_8_epochs": _longer(
    "CIFAR-10 (JPEG, 16x16), ResNet-8, after eight epochs of fine-tuning",
    "cifar16_8_epochs",
    "--config.finetune.epochs=8 --config.compare.classical=4 \\\n"
    "  \"--config.compare.searches=('evolve_ratios','evolve_bits')\"",
  ),
  "cifar16_30_epochs": _longer(
    "CIFAR-10 (JPEG, 16x16), ResNet-8, after thirty epochs of fine-tuning",
    "cifar16_30_epochs",
    "--config.finetune.epochs=30 --config.compare.classical=2 \\\n"
    '  "--config.compare.budgets=(0.12,)" '
    "\"--config.compare.searches=('evolve_bits',)\"",
  ),
  "cifar16_fidelity": _fidelity("cifar16_fidelity", "(0,1,2)", 0.12),
  "cifar16_fidelity_25": _fidelity("cifar16_fidelity_25", "(0,1,2)", 0.25),
  "cifar16_fading": Table(
    "Gentler starts of fine-tuning",
    (
      f"python -m experiments.fading --workdir=$WORKDIR/cifar16_fading \\\n  {_CIFAR16} \\\n"
      '  --config.finetune.epochs=4 "--config.compare.seeds=(0,1)" '
      '"--config.compare.budgets=(0.12,)" '
      "\"--config.criteria=('l1','l2')\"",
    ),
    None,
    (PRINTED,),
    as_printed,
  ),
  "rounds_digits": _rounds(
    "Digits, a quarter of the MACs, at once and in three rounds",
    "rounds_digits",
    "--config.budgets.macs=0.25",
    36,
    (18, 96),
    None,
  ),
  "rounds_cifar16": _rounds(
    "CIFAR-10 (JPEG, 16x16), ResNet-8, a quarter of the MACs, at once and in three rounds",
    "rounds_cifar16",
    f"\\\n  {_CIFAR16} --config.budgets.macs=0.25",
    6,
    (12, 48),
    None,
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
