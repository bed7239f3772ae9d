"""Tests that ResNets with imported weights give PyTorch's own logits, for every file format."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from gatprune_jax.models import cifar_resnet, eval_function, imagenet_resnet, load_torch

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NUM_CLASSES = 11


class Block(nn.Module):
  """A residual block under torchvision's names; `kernels` has the size of each convolution."""

  def __init__(self, before, width, after, stride, kernels):
    super().__init__()
    channels = [before, *[width] * (len(kernels) - 1), after]
    self.num_layers = len(kernels)
    strided = kernels.index(3)  # the first 3x3 convolution
    for i, kernel in enumerate(kernels):
      conv = nn.Conv2d(
        channels[i], channels[i + 1], kernel, stride if i == strided else 1, kernel // 2, bias=False
      )
      setattr(self, f"conv{i + 1}", conv)
      setattr(self, f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
    if stride != 1 or before != after:
      conv = nn.Conv2d(before, after, 1, stride, bias=False)
      self.downsample = nn.Sequential(conv, nn.BatchNorm2d(after))

  def forward(self, x):
    y = x
    for i in range(1, self.num_layers + 1):
      y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
      y = torch.relu(y) if i < self.num_layers else y
    return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class TorchResNet(nn.Module):
  """ResNet-18 or -50 in the structure and under the names of torchvision."""

  def __init__(self, depth):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    before, widths = 64, (64, 128, 256, 512)
    kernels = (3, 3) if depth == 18 else (1, 3, 1)
    for stage, num_blocks in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
      blocks = []
      for block in range(num_blocks):
        after = widths[stage] * (1 if depth == 18 else 4)
        stride = 2 if stage and not block else 1
        blocks.append(Block(before, widths[stage], after, stride, kernels))
        before = after
      setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
    self.fc = nn.Linear(before, NUM_CLASSES)

  def forward(self, x):
    x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


class TorchCifarResNet(nn.Module):
  """The smallest ResNet for small images, option B, under torchvision's names."""

  def __init__(self):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(4)
    self.layer1 = nn.Sequential(Block(4, 4, 4, 1, (3, 3)))
    self.layer2 = nn.Sequential(Block(4, 6, 6, 2, (3, 3)))
    self.layer3 = nn.Sequential(Block(6, 8, 8, 2, (3, 3)))
    self.fc = nn.Linear(8, NUM_CLASSES)

  def forward(self, x):
    x = torch.relu(self.bn1(self.conv1(x)))
    return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Case:
  """A PyTorch network with random weights and statistics, its logits, and its JAX counterpart."""

  def __init__(self, network, module, side):
    torch.manual_seed(0)
    for name, values in network.state_dict().items():
      if values.ndim == 1:
        positive = name.endswith(("running_var", "weight"))
        values.uniform_(0.5, 1.5) if positive else values.normal_(0, 0.3)
    self.state = network.eval().state_dict()
    self.x = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
      self.logits = network(torch.tensor(self.x.transpose(0, 3, 1, 2))).numpy()
    self.apply = jax.jit(eval_function(module))
    self.like = jax.eval_shape(module.init, jax.random.key(0), self.x)

  def check(self, path, names=None, tolerance=1e-4):
    logits = self.apply(load_torch(path, self.like, names), self.x)
    atol = tolerance * abs(self.logits).max()
    np.testing.assert_allclose(logits, self.logits, rtol=0, atol=atol)


@pytest.fixture(scope="module", params=[18, 50])
def case(request):
  return Case(TorchResNet(request.param), imagenet_resnet(request.param, NUM_CLASSES), 64)


def save(state, path, form):
  if form == "safetensors":
    safetensors.numpy.save_file({name: value.numpy() for name, value in state.items()}, path)
  else:
    torch.save(state, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize("form", ["legacy", "zip", "safetensors"])
def test_logits_agree_for_every_format(form, case, tmp_path):
  save(case.state, tmp_path / "weights", form)
  case.check(tmp_path / "weights")


def test_logits_agree_for_hugging_face_names(case, tmp_path):
  def renamed(name):
    for pattern, replacement in [
      (r"^conv1\.", "resnet.embedder.embedder.convolution."),
      (r"^bn1\.", "resnet.embedder.embedder.normalization."),
      (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
      (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
      (r"\.downsample\.0\.", ".shortcut.convolution."),
      (r"\.downsample\.1\.", ".shortcut.normalization."),
      (r"^layer(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers."),
      (r"^fc\.", "classifier.1."),
    ]:
      name = re.sub(pattern, replacement, name)
    return name

  save({renamed(name): value for name, value in case.state.items()}, tmp_path / "hf", "zip")
  case.check(tmp_path / "hf")
  case.check(tmp_path / "hf", "huggingface")


@pytest.mark.parametrize("form", ["legacy", "zip"])
def test_logits_agree_for_odd_sizes_and_option_b(form, tmp_path):
  case = Case(TorchCifarResNet(), cifar_resnet(8, NUM_CLASSES, (4, 6, 8), "B"), 15)
  names = {"fc.": "linear.", ".downsample.": ".shortcut."}
  state = {}
  for name, value in case.state.items():
    for ours, theirs in names.items():
      name = name.replace(ours, theirs)
    # Each value becomes a parameter whose elements lie transposed within a larger storage.
    padded = torch.zeros((2, *reversed(value.shape)), dtype=value.dtype)
    axes = tuple(reversed(range(value.ndim)))
    padded[1] = value.permute(axes)
    value = padded[1].permute(axes)
    assert value.ndim < 2 or 1 in value.shape or not value.is_contiguous()
    state[f"module.{name}"] = nn.Parameter(value, requires_grad=False)
  save({"epoch": 3, "model": state, "best": 91.8}, tmp_path / "nested", form)
  case.check(tmp_path / "nested")


@pytest.mark.parametrize("form", ["legacy", "zip"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.01), ("bfloat16", 0.05)])
def test_half_precision_is_read(form, dtype, tolerance, tmp_path):
  case = Case(TorchCifarResNet(), cifar_resnet(8, NUM_CLASSES, (4, 6, 8), "B"), 16)
  state = {name: value.to(getattr(torch, dtype)) for name, value in case.state.items()}
  save(state, tmp_path / "half", form)
  case.check(tmp_path / "half", "torchvision", tolerance)
