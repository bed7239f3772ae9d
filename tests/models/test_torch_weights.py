"""Tests of the names and layout of imported weights, and of the list of tensors that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import gatprune_jax as gp
from gatprune_jax.models import TORCH_NAMES, cifar_resnet, load_torch, model

LIKE = jax.eval_shape(
  cifar_resnet(8, 5, (2, 3, 4), "B").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
)


def state(head="linear", shortcut="shortcut", dtype=np.float32):
  """Returns random tensors of the smallest CIFAR ResNet, under the names that PyTorch uses.

  Args:
    head: name of the dense layer.
    shortcut: name of the projections.
    dtype: dtype of the tensors.
  """
  rng = np.random.default_rng(0)
  tensors = {"conv1.weight": (2, 3, 3, 3), f"{head}.weight": (5, 4), f"{head}.bias": (5,)}
  norms = {"bn1": 2}
  for stage, (before, width) in enumerate([(2, 2), (2, 3), (3, 4)], 1):
    block = f"layer{stage}.0"
    tensors[f"{block}.conv1.weight"] = (width, before, 3, 3)
    tensors[f"{block}.conv2.weight"] = (width, width, 3, 3)
    norms |= {f"{block}.bn1": width, f"{block}.bn2": width}
    if stage > 1:
      tensors[f"{block}.{shortcut}.0.weight"] = (width, before, 1, 1)
      norms[f"{block}.{shortcut}.1"] = width
  for norm, width in norms.items():
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      tensors[f"{norm}.{leaf}"] = (width,)
  values = {name: rng.standard_normal(shape).astype(dtype) for name, shape in tensors.items()}
  return values | {f"{norm}.num_batches_tracked": np.array(7) for norm in norms}


@pytest.fixture
def path(tmp_path):
  return tmp_path / "checkpoint.safetensors"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_find_their_place_and_layout(prefix, path):
  tensors = state()
  safetensors.numpy.save_file({prefix + name: value for name, value in tensors.items()}, path)
  variables = load_torch(path, LIKE)
  params, stats = variables["params"], variables["batch_stats"]
  assert jax.tree.structure(variables) == jax.tree.structure(LIKE)
  for loaded, torch_name, axes in [
    (params["stem"]["kernel"], "conv1.weight", (2, 3, 1, 0)),
    (params["norm_stem"]["scale"], "bn1.weight", (0,)),
    (params["norm_stem"]["bias"], "bn1.bias", (0,)),
    (params["stage2_0"]["conv1"]["kernel"], "layer2.0.conv1.weight", (2, 3, 1, 0)),
    (params["stage2_0"]["project"]["kernel"], "layer2.0.shortcut.0.weight", (2, 3, 1, 0)),
    (stats["stage3_0"]["norm_project"]["mean"], "layer3.0.shortcut.1.running_mean", (0,)),
    (stats["stage3_0"]["norm2"]["var"], "layer3.0.bn2.running_var", (0,)),
    (params["head"]["kernel"], "linear.weight", (1, 0)),
    (params["head"]["bias"], "linear.bias", (0,)),
  ]:
    np.testing.assert_array_equal(loaded, tensors[torch_name].transpose(axes), strict=True)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_values_take_the_dtype_of_the_network(dtype, path):
  tensors = state(dtype=dtype)
  safetensors.numpy.save_file(tensors, path)
  variables = load_torch(path, LIKE)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  expected = tensors["linear.bias"].astype(np.float32)
  np.testing.assert_array_equal(variables["params"]["head"]["bias"], expected)


def test_schemes_are_recognised_or_given(path):
  safetensors.numpy.save_file(state("fc", "downsample"), path)
  recognised = load_torch(path, LIKE)
  for names in ("torchvision", TORCH_NAMES["torchvision"]):
    given = load_torch(path, LIKE, names)
    jax.tree.map(np.testing.assert_array_equal, given, recognised)
  with pytest.raises(gp.InputError, match=r"linear\.weight is missing.*fc\.weight is left over"):
    load_torch(path, LIKE, "akamaster")
  with pytest.raises(gp.InputError, match="'caffe' is unknown: choose one of torchvision"):
    load_torch(path, LIKE, "caffe")


def test_everything_that_does_not_fit_is_listed(path):
  tensors = state()
  del tensors["bn1.weight"], tensors["layer1.0.conv1.weight"]
  tensors["layer1.1.conv1.weight"] = np.zeros((2, 2, 3, 3), np.float32)
  tensors["linear.weight"] = np.zeros((10, 4), np.float32)
  tensors["conv1.weight"] = np.zeros((3, 3, 3, 2), np.float32)
  tensors["layer3.0.bn2.bias"] = np.zeros(4, np.int32)
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(gp.InputError) as error:
    load_torch(path, LIKE)
  assert str(error.value) == (
    f"checkpoint {path} is of another network: "
    "bn1.weight is missing; layer1.0.conv1.weight is missing; layer1.1.conv1.weight is left over; "
    "conv1.weight has shape (3, 3, 3, 2) where the network has (2, 3, 3, 3); "
    "layer3.0.bn2.bias has dtype int32, which is not floating-point; "
    "linear.weight has shape (10, 4) where the network has (5, 4)"
  )


def test_unknown_names_are_refused(path):
  safetensors.numpy.save_file({"blocks.0.weight": np.zeros(3, np.float32)}, path)
  with pytest.raises(gp.InputError, match=r"names such as blocks\.0\.weight belong to none"):
    load_torch(path, LIKE)


def dotted_state(like, values):
  """Returns tensors under Flax's module names joined by dots, with PyTorch's leaf names and shapes.

  Args:
    like: the variables of the network.
    values: a function of a shape that returns an array.
  """
  dotted = {}
  for keys, leaf in jax.tree.leaves_with_path(like):
    collection, *module, name = (key.key for key in keys)
    name = {"kernel": "weight", "scale": "weight"}.get(name, name)
    name = f"running_{name}" if collection == "batch_stats" else name
    shape = {4: leaf.shape[::-1], 2: leaf.shape[::-1]}.get(leaf.ndim, leaf.shape)
    dotted[".".join([*module, name])] = values(shape).astype(np.float32)
  return dotted


def test_networks_that_are_no_resnets_need_a_function(path):
  like = jax.eval_shape(
    model("vgg16", 2, widths=(1, 1, 1, 1, 1)).init, jax.random.key(0), jnp.zeros((1, 32, 32, 1))
  )
  dotted = dotted_state(like, np.ones)
  safetensors.numpy.save_file(dotted, path)
  with pytest.raises(gp.InputError, match=r"module [a-z]+1_0 is not one of a ResNet"):
    load_torch(path, like)
  variables = load_torch(path, like, ".".join)
  assert all((leaf == 1).all() for leaf in jax.tree.leaves(variables))


def test_a_flattened_map_is_read_in_the_order_of_pytorch(path):
  module = model("vgg16", 2, dense_widths=(3,), widths=(2, 2, 2, 2, 2))
  x = np.random.default_rng(0).standard_normal((2, 64, 96, 1)).astype(np.float32)
  like = jax.eval_shape(module.init, jax.random.key(0), x)
  tensors = dotted_state(like, np.random.default_rng(1).random)
  safetensors.numpy.save_file(tensors, path)
  variables = load_torch(path, like, ".".join)
  logits, seen = module.apply(variables, x, capture_intermediates=True)
  last = np.asarray(seen["intermediates"]["norm5_2"]["__call__"][0])  # [B, 4, 6, C]
  pooled = np.maximum(last, 0).reshape(2, 2, 2, 3, 2, 2).max((2, 4))  # [B, 2, 3, C]
  # PyTorch's maps are [B, C, 2, 3] and its kernels [out, in].
  flat = pooled.transpose(0, 3, 1, 2).reshape(2, -1)
  hidden = np.maximum(flat @ tensors["dense1.weight"].T + tensors["dense1.bias"], 0)
  expected = hidden @ tensors["head.weight"].T + tensors["head.bias"]
  np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_only_weights_and_statistics_have_a_counterpart(path):
  safetensors.numpy.save_file(state(), path)
  odd = {"params": {"head": {"temperature": np.zeros(())}}}
  with pytest.raises(gp.InputError, match="params/head/temperature has no counterpart"):
    load_torch(path, odd)
