"""Translates Flax names of a ResNet's layers to the names in PyTorch code bases."""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import re

from gatprune_jax.errors import InputError

Path = tuple[str, ...]

# (Flax collection, name of the leaf) -> last part of the tensor's name in PyTorch.
_LEAVES = {
  ("params", "kernel"): "weight",
  ("params", "scale"): "weight",
  ("params", "bias"): "bias",
  ("batch_stats", "mean"): "running_mean",
  ("batch_stats", "var"): "running_var",
}


@dataclasses.dataclass(frozen=True)
class ResNetNames:
  """PyTorch names of a ResNet's modules, callable on the path of a Flax module.

  Attributes:
    stem: name of the first convolution.
    norm_stem: name of the normalisation after the first convolution.
    head: name of the dense layer.
    block: name of a block; `{stage}` counts from 1, `{stage_0}` and `{block}` count from 0.
    conv: name of a convolution within a block; `{layer}` counts from 1, `{layer_0}` from 0.
    norm: name of a normalisation within a block; `{layer}` and `{layer_0}` count as in `conv`.
    project: name of the shortcut's convolution within a block.
    norm_project: name of the normalisation after the shortcut's convolution, within a block.
  """

  stem: str
  norm_stem: str
  head: str
  block: str
  conv: str
  norm: str
  project: str
  norm_project: str

  def __call__(self, path: Path) -> str:
    """Returns the PyTorch name of a module: `("stage2_0", "conv1")` -> "layer2.0.conv1", say.

    Raises:
      InputError: if no ResNet of this package has the module.
    """
    if path in (("stem",), ("norm_stem",), ("head",)):
      return getattr(self, path[0])
    match = re.fullmatch(r"stage(\d+)_(\d+)/(conv|norm|project|norm_project)(\d*)", "/".join(path))
    if not match:
      raise InputError(f"module {'/'.join(path)} is not one of a ResNet: give names as a function")
    stage, block, kind, layer = match.groups()
    prefix = self.block.format(stage=stage, stage_0=int(stage) - 1, block=block)
    name = getattr(self, kind)
    if layer:
      name = name.format(layer=layer, layer_0=int(layer) - 1)
    return f"{prefix}.{name}"


# Scheme -> function of a Flax module's path.
TORCH_NAMES: Mapping[str, Callable[[Path], str]] = {
  # timm's ResNet-18, -34 and -50 use these names too.
  "torchvision": ResNetNames(
    stem="conv1",
    norm_stem="bn1",
    head="fc",
    block="layer{stage}.{block}",
    conv="conv{layer}",
    norm="bn{layer}",
    project="downsample.0",
    norm_project="downsample.1",
  ),
  # github.com/akamaster/pytorch_resnet_cifar10.
  "akamaster": ResNetNames(
    stem="conv1",
    norm_stem="bn1",
    head="linear",
    block="layer{stage}.{block}",
    conv="conv{layer}",
    norm="bn{layer}",
    project="shortcut.0",
    norm_project="shortcut.1",
  ),
  # ResNetForImageClassification of the transformers library.
  "huggingface": ResNetNames(
    stem="resnet.embedder.embedder.convolution",
    norm_stem="resnet.embedder.embedder.normalization",
    head="classifier.1",
    block="resnet.encoder.stages.{stage_0}.layers.{block}",
    conv="layer.{layer_0}.convolution",
    norm="layer.{layer_0}.normalization",
    project="shortcut.convolution",
    norm_project="shortcut.normalization",
  ),
}


def tensor_name(names: Callable[[Path], str], path: Path) -> str:
  """Returns the PyTorch name of a leaf: `("params", "head", "kernel")` -> "fc.weight", say.

  Raises:
    InputError: if the leaf is no weight, bias or statistic, or `names` refuses its module.
  """
  ends = (path[0], path[-1])
  if ends not in _LEAVES:
    raise InputError(f"variable {'/'.join(path)} has no counterpart in a PyTorch checkpoint")
  return f"{names(path[1:-1])}.{_LEAVES[ends]}"


def recognise(stored: Collection[str], paths: Collection[Path]) -> Callable[[Path], str]:
  """Returns the naming scheme under which the most leaves are among the stored names.

  Args:
    stored: names of the tensors in the file.
    paths: paths of the network's leaves.

  Raises:
    InputError: if no scheme matches any stored name, or the network is not a ResNet.
  """
  found = {
    scheme: sum(tensor_name(names, path) in stored for path in paths)
    for scheme, names in TORCH_NAMES.items()
  }
  best = max(found, key=found.__getitem__)
  if not found[best]:
    examples = ", ".join(sorted(stored)[:3])
    raise InputError(
      f"names such as {examples} belong to none of the schemes {', '.join(TORCH_NAMES)}: "
      "give names as a function"
    )
  return TORCH_NAMES[best]
