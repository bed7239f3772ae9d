"""Tests that wrong input ends in one sentence that says what is wrong, and writes nothing."""

import pytest

from tests.experiments.mains import contents, run

# {name: (arguments, part of the error message)}. An argument without dashes is a field of the
# config, and {} stands for the directory of the files that the test writes.
BAD = {
  # Wrong command lines.
  "stray argument": (["stray"], "'stray' is not a flag: use --workdir=DIR"),
  "unknown flag": (["--workdri=x"], "'workdri'. Did you mean: workdir"),
  "no config": (["--config=/nowhere/config.py"], "No such file or directory: '/nowhere/config.py'"),
  "config is text": (["--config={}/text"], "cannot be loaded: invalid syntax"),
  "config is empty": (["--config={}/empty.py"], "has no attribute 'get_config'"),
  "unknown variant": (
    ["--config=experiments/configs/digits_resnet8.py:huge"],
    "variant 'huge' of digits_resnet8 is unknown: choose runlocal or none",
  ),
  "unknown field": (["search.update=3"], "config.search.update is not a field of the"),
  "unknown section": (["serch.updates=3"], 'Did you mean "search" instead of "serch"'),
  "word for a number": (["search.updates=many"], "'many'"),
  "fraction for a number": (["seed=1.5"], "'1.5'"),
  "word for a truth value": (["finetune_side_by_side=maybe"], "'maybe'"),
  "number for a section": (["finetune=3"], "`3` is not a dict"),
  # Wrong numbers.
  "seed too large": (["seed=9999999999"], "seed is 9999999999: it must be at least 0 and"),
  "negative seed": (["seed=-1"], "seed is -1: it must be at least 0 and below 2**32"),
  "not a number": (["search.ppo.clip=nan"], "config.search.ppo.clip is nan: it must be a"),
  "infinite": (["finetune.learning_rate=inf"], "config.finetune.learning_rate is inf: it"),
  "negative rate": (["finetune.learning_rate=-1"], "learning_rate is -1.0: it must be"),
  "no epochs": (["dense.recipe.epochs=0"], "epochs is 0: it must be positive"),
  "long warm-up": (["dense.recipe.warmup_epochs=99"], "99.0: it must be less than the 30"),
  "smoothing": (["finetune.label_smoothing=2"], "2.0: it must be at least 0 and below"),
  "no teacher": (["dense.recipe.distillation=0.5"], "dense.recipe.distillation must be"),
  "no updates": (["search.updates=0"], "search updates is 0: it must be at least"),
  "one sample": (["search.samples=1"], "search samples is 1: a leave-one-out baseline"),
  "short memory": (["search.past_scores=3"], "it must hold at least one update's 32"),
  "no heads": (["search.policy.heads=0"], "policy heads is 0: it must be at least"),
  "no maximum": (["search.dual.maximum=0"], "maximum 0.0: the first must not be negative"),
  "no checkpoints": (["checkpoints.keep=0"], "checkpoint keep is 0: it must be at least"),
  # Wrong choices.
  "unknown model": (["model.name=resnet9"], "model 'resnet9' is unknown: choose one of"),
  "model without it": (["model.name=resnet50"], "resnet50 has no option 'shortcut'"),
  "bad widths": (["model.widths=(8,4)"], "widths (8, 4): a CIFAR ResNet has three"),
  "words as widths": (["model.widths=('a','b','c')"], "('a', 'b', 'c'): a CIFAR ResNet"),
  "factory without a name": (["model.factory=module"], "model factory 'module' names no function"),
  "factory is a file": (["model.factory=a/b.py:make"], "'a/b.py:make' names no function: give"),
  "unknown dtype": (["model.dtype=int8"], "model dtype 'int8' is unknown: choose from"),
  "unknown criterion": (["criteria=('l1','magic')"], "'magic' is unknown: choose from"),
  "no criterion": (["criteria=('random',)"], "names no saliency score besides random"),
  "unknown schedule": (["search.schedule=never"], "'never' is unknown: choose from"),
  "unknown reward": (["search.self_competition=worst"], "'worst' is unknown: choose from"),
  # Wrong budgets.
  "unreachable budget": (["budgets.macs=0.001"], "smallest reachable share is 0.0"),
  "zero budget": (["budgets.macs=0"], "budget 0 for macs is not a share of the dense"),
  "budget above one": (["budgets.macs=1.5"], "budget 1.5 for macs is not a share of the"),
  "unknown unit": (
    ["budgets.macs=5ms"],
    "budget 5ms for macs has the unknown unit 'ms': choose from k, M, G, MACs",
  ),
  "word for a budget": (["budgets.weight_bytes=few"], "budget few for weight_bytes is not a share"),
  "negative budget": (
    ["budgets.weight_bytes=-3KB"],
    "budget -3KB for weight_bytes is not positive",
  ),
  "unreachable bytes": (
    ["budgets.activation_bytes=1KB"],
    "budget 1KB for activation_bytes cannot be reached: with at least 1 to 4 channels kept",
  ),
  "no latency table": (
    ["budgets.latency=0.5", "latency.table=/nowhere"],
    "latency table /nowhere cannot be read: No such file or directory",
  ),
  "unit of latency": (
    ["budgets.latency=5MB"],
    "budget 5MB for latency has the unknown unit 'MB': choose from ns, us, ms, s",
  ),
  "text for a table": (["latency.table={}/text"], "text is no JSON file: "),
  "no examples": (["deployment.batch=0"], "deployment batch is 0: it must be at least 1"),
  "high floors": (["search.keep_floor=0.9"], "budget 0.25 for macs cannot be reached"),
  "floor above one": (["search.keep_floor=2"], "the keep floor 2.0 is not a share of a"),
  # Wrong data.
  "unknown dataset": (["dataset=mnist"], "'mnist' is unknown: choose one of cifar10,"),
  "directory not needed": (["data_dir={}"], "digits has none, set it to ''"),
  "size not needed": (["image_size=32"], "image_size is 32: images of digits have"),
  "no directory": (["dataset=folder", "data_dir=/nowhere"], "data directory '/nowhere' is missing"),
  "empty directory": (
    ["dataset=folder", "data_dir={}/folder"],
    "folder has 0 folders: it needs one",
  ),
  "no arrays": (["dataset=npz", "data_dir={}/text"], "text' is not a readable npz file"),
  "not prepared": (["dataset=cifar10", "data_dir={}"], "has no folder 'cifar10': prepare it with"),
  "too few images": (["images.reward=5000"], "cannot cut 5000 of 1097 images off"),
  "batch too large": (["finetune.batch_size=698"], "batch_size 698 exceeds the 697"),
  "crops of arrays": (["finetune.crop_area=0.5"], "crop_area is 0.5: only photographs are"),
  "shift too far": (["finetune.shift=8"], "shift is 8: it must be below the images' 8"),
  "confirmation split too small": (
    ["search.confirmation_share=0.001"],
    "cannot cut 0 of 400 images off",
  ),
  "calibration": (["search.calibration_images=698"], "is 698: there are 697 training"),
  # Wrong weights.
  "no checkpoint": (["dense.checkpoint=/nowhere"], "/nowhere/checkpoints/dense does not"),
  "no weights": (["dense.weights=/nowhere.pth"], "/nowhere.pth cannot be read: No such fi"),
  "weights are text": (["dense.weights={}/text"], "text: no checkpoint of torch.save"),
  "trained by whom": (["dense.trained=True"], "give dense.weights or model.factory, or set it to"),
  "trained twice": (
    ["dense.trained=True", "dense.checkpoint=/run"],
    "dense.trained is True and dense.checkpoint is '/run': each gives a trained network",
  ),
  # Wrong directories.
  "no cache below a file": (
    ["--compilation_cache={}/text/inner"],
    "text/inner cannot be written (Not a directory): give another directory, or 'off'",
  ),
  "no place": (["--workdir="], "no workdir given: add --workdir=DIR"),
  "a file": (
    ["--workdir={}/text"],
    "text is a file: give a directory, or a path that does not exist",
  ),
  "below a file": (["--workdir={}/text/run"], "text/run cannot be written: Not a directory: give"),
  "other files": (["--workdir={}"], "is not empty and has no readable config.json: give an empty"),
  "not to be written": (
    ["--workdir=/proc/run"],
    "workdir /proc/run cannot be written: No such file",
  ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_sentence(case, tmp_path):
  arguments, words = BAD[case]
  mine = tmp_path / "mine"
  (mine / "folder").mkdir(parents=True)
  (mine / "text").write_text("what is no program, and no image\n")
  (mine / "empty.py").write_text("")
  before = contents(mine)
  is_field = lambda argument: argument[0] != "-" and "=" in argument
  arguments = [f"--config.{argument}" if is_field(argument) else argument for argument in arguments]
  arguments = [argument.replace("{}", str(mine)) for argument in arguments]
  done = run("prune", f"--workdir={tmp_path / 'run'}", *arguments)
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith("error: ")
  assert words in line
  assert done.stdout == ""
  assert not (tmp_path / "run").exists()
  assert contents(mine) == before
