"""ResNet-50 on ImageNet, pruned to half of its MACs.

Reference: He et al. 2016, arXiv 1512.03385, table 1, stride in the 3x3 convolution; torchvision's
  weights (IMAGENET1K_V1) have 76.13 % on the validation images.
Command: python -m experiments.train --workdir=/tmp/dense --config.data_dir=TFDS \\
  --config=experiments/configs/imagenet_resnet50.py
  and experiments.prune with the same two flags and --config.dense.checkpoint=/tmp/dense; to train
  from torchvision's weights, add --config.dense.weights=resnet50.pth to the first command
Hardware: one accelerator with 80 GB, and eight or more CPU cores to decode. Time and numbers: not
  measured yet.

The test part is the validation split. Reward and select are cut from the training images.
The variant `:runlocal` is a ResNet-18 on crops of 64 pixels. It takes a minute or two on a CPU and
learns nothing. The first run on the whole data set reads the labels of all images before it starts.
"""

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config
from experiments.common.sections import ModelConfig
from experiments.configs import cifar10_resnet20, variants


def get_config(variant: str = "") -> ConfigDict:
  config = cifar10_resnet20.get_config()
  config.dataset = "imagenet2012"
  config.image_size = 224
  config.images.update({"train": 0, "reward": 5000, "select": 10000, "test": 0})
  config.model = as_config(ModelConfig("resnet50"))
  augmentation = {"shift": 0, "flip": True, "crop_area": 0.08}
  config.dense.recipe.update(augmentation)
  config.dense.recipe.update(
    {"epochs": 90, "batch_size": 256, "warmup_epochs": 5.0, "label_smoothing": 0.1}
  )
  config.search.update({"chunk": 1, "calibration_images": 256})
  config.finetune.update(augmentation)
  config.finetune.update({"epochs": 30, "batch_size": 256, "learning_rate": 0.01})
  config.finetune_side_by_side = False
  config.compare.searches = ("evolve_bits",)
  return variants.apply("imagenet_resnet50", config, variant, {"runlocal": _run_locally})


def _run_locally(config: ConfigDict) -> None:
  variants.run_locally(config)
  config.image_size = 64
  config.model.name = "resnet18"  # ResNet-50 takes minutes to compile on a CPU
