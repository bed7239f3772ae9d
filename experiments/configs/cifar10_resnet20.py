"""ResNet-20 on CIFAR-10, pruned to half of its MACs.

Reference: He et al. 2016, arXiv 1512.03385, section 4.2: option A, 269,722 parameters, 40.6 M MACs,
  91.25 % on the test images.
Command: python -m experiments.train --workdir=/tmp/dense --config.data_dir=TFDS \\
  --config=experiments/configs/cifar10_resnet20.py
  and experiments.prune with the same two flags and --config.dense.checkpoint=/tmp/dense
Hardware: one accelerator. Time and numbers: not measured yet. Numbers from published weights on two
  CPU cores are in experiments/README.md, "CIFAR and ImageNet".

The variant `:cpu` is a small experiment for two CPU cores that starts from published weights
(`--config.dense.weights=FILE`). It has few images, masks and epochs, for all methods alike. A seed
of experiments.compare takes twelve minutes on one core; numbers are in experiments/RESULTS.md.
The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config
from experiments.common.sections import ModelConfig
from experiments.configs import digits_resnet8, variants


def get_config(variant: str = "") -> ConfigDict:
  config = digits_resnet8.get_config()
  config.dataset = "cifar10"
  config.images.update({"train": 0, "reward": 2000, "select": 2000, "test": 0})
  config.model = as_config(ModelConfig("resnet20", options={"shortcut": "A"}))
  config.dense.recipe.update(
    {"epochs": 200, "batch_size": 128, "weight_decay": 1e-4, "shift": 4, "flip": True}
  )
  config.budgets.macs = 0.5
  config.search.update({"calibration_images": 512, "calibration_batch": 64, "updates": 200})
  config.finetune.update({"batch_size": 128, "learning_rate": 0.01, "shift": 4, "flip": True})
  config.compare.update({"seeds": (0, 1, 2), "budgets": (0.5,)})
  return variants.apply("cifar10_resnet20", config, variant, {"cpu": _for_cpu})


def _for_cpu(config: ConfigDict) -> None:
  config.images.update({"train": 4000, "reward": 320, "select": 1000, "test": 2000})
  config.dense.recipe.update(
    {"epochs": 4, "batch_size": 64, "learning_rate": 0.01, "warmup_epochs": 0.5}
  )
  config.search.update({"updates": 8, "samples": 32, "refinement": 48, "shortlist": 1})
  config.search.update({"calibration_images": 128, "confirmation_share": 0.2})
  config.finetune.update({"epochs": 1, "batch_size": 64, "warmup_epochs": 0.1})
  config.finetune_side_by_side = False
  config.compare.searches = ("evolve_bits",)
