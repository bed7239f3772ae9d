"""Tests of CIFAR and ImageNet, read from small directories that the tests write."""

import dataclasses
import glob
import io
import os
import shutil

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import DataConfig, Photographs, Sizes, load_dataset
from gatprune_jax.data.decoding import centre_crop
from tests.data.directories import encoded, photograph, write_tfds


def pixels(index):
  return np.asarray(photograph(index, (32, 32)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  write_tfds("cifar10", path, (120, 30), num_classes=10)
  write_tfds("imagenet2012", path, (30, 8), num_classes=2)
  return str(path)


@pytest.fixture
def copy(directory, tmp_path):
  """Returns a copy of the directory for one test, without the labels that earlier runs stored."""
  return shutil.copytree(
    directory, tmp_path / "copy", ignore=shutil.ignore_patterns("labels-*.npy")
  )


def cifar10(directory, **sizes):
  sizes = Sizes(**{"train": 0, "reward": 30, "select": 20, "test": 0} | sizes)
  return DataConfig("cifar10", str(directory), sizes)


def imagenet(directory, **changes):
  config = DataConfig("imagenet2012", str(directory), Sizes(0, 8, 6, 0), image_size=24)
  return dataclasses.replace(config, **changes)


def damage(directory, name, split):
  """Flips a byte of a record file, beyond its header."""
  (path,) = glob.glob(os.path.join(directory, name, "*", f"{name}-{split}.array_record-*"))
  with open(path, "r+b") as file:
    file.seek(1000)
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 255]))


def test_images_and_labels_arrive_in_four_balanced_parts(directory):
  data = load_dataset(cifar10(directory))
  assert [len(part.y) for part in data[2:6]] == [70, 30, 20, 30]
  assert data.num_classes == 10
  stored = {pixels(i).tobytes(): i % 10 for i in range(120)}
  seen = set()
  for part in (data.train, data.reward, data.select):
    assert part.x.dtype == np.uint8
    assert (np.bincount(part.y) == len(part.y) // 10).all()
    for image, label in zip(part.x, part.y, strict=True):
      assert stored[image.tobytes()] == label
      seen.add(image.tobytes())
  assert len(seen) == 120
  assert {x.tobytes() for x in data.test.x} == {pixels(100_000 + i).tobytes() for i in range(30)}


def test_smaller_parts(directory):
  one, other = (load_dataset(cifar10(directory, train=40, test=20), seed) for seed in (0, 1))
  assert [len(part.y) for part in one[2:6]] == [40, 30, 20, 20]
  assert not np.array_equal(one.reward.x, other.reward.x)
  np.testing.assert_array_equal(one.test.x, other.test.x)


def test_a_part_of_all_test_images_is_all_of_them(directory):
  whole, same = (load_dataset(cifar10(directory, test=size)) for size in (0, 30))
  np.testing.assert_array_equal(same.test.x, whole.test.x)
  with pytest.raises(gp.InputError, match=r"images\.test is 31: cannot cut 31 of 30 images off"):
    load_dataset(cifar10(directory, test=31))


def test_pixels_are_scaled_as_the_published_networks_expect(directory):
  data = load_dataset(cifar10(directory))
  x = data.test.x[:2]
  expected = (x / 255 - np.array([[[[0.485, 0.456, 0.406]]]])) / np.array(
    [[[[0.229, 0.224, 0.225]]]]
  )
  np.testing.assert_allclose(data.pixels(x), expected, rtol=1e-5, atol=1e-6)


def test_imagenet_is_read_when_it_is_needed(directory):
  data = load_dataset(imagenet(directory))
  assert data.num_classes == 1000
  assert [len(part.y) for part in data[2:6]] == [16, 8, 6, 8]
  for part in data[2:5]:
    assert (np.bincount(part.y) == len(part.y) // 2).all()
  assert isinstance(data.train.x, Photographs)
  assert isinstance(data.test.x, Photographs)
  file = lambda index: encoded(photograph(index), "JPEG")
  stored = {centre_crop(file(i), 24).tobytes(): i % 2 for i in range(30)}
  seen = set()
  for part in data[2:5]:
    for image, label in zip(part.x[:], part.y, strict=True):
      assert stored[image.tobytes()] == label
      seen.add(image.tobytes())
  assert len(seen) == 30
  expected = {centre_crop(file(100_000 + i), 24).tobytes() for i in range(8)}
  assert {image.tobytes() for image in data.test.x[:]} == expected


def test_labels_of_imagenet_are_read_once(copy):
  first = load_dataset(imagenet(copy))
  for path in glob.glob(os.path.join(copy, "imagenet2012", "*", "labels-*.npy")):
    labels = np.load(path)
    np.save(path, 1 - labels)
  second = load_dataset(imagenet(copy))
  file = lambda index: encoded(photograph(index), "JPEG")
  stored = {centre_crop(file(i), 24).tobytes(): i % 2 for i in range(30)}
  for data, sign in ((first, 0), (second, 1)):
    assert [stored[x.tobytes()] ^ sign for x in data.reward.x] == data.reward.y.tolist()


def test_kept_labels_that_do_not_fit_are_read_anew(copy):
  first = load_dataset(imagenet(copy))
  (path,) = glob.glob(os.path.join(copy, "imagenet2012", "*", "labels-train.npy"))
  with open(path, "rb") as file:
    whole = file.read()
  labels = np.load(path)
  broken = [b"", b"text\n", whole[:20], whole[:-4]]
  for other in (labels[:-1], labels[:, None], labels.astype(float), labels - 2, labels + 999):
    file = io.BytesIO()
    np.save(file, other)
    broken.append(file.getvalue())
  for content in broken:
    with open(path, "wb") as file:
      file.write(content)
    np.testing.assert_array_equal(load_dataset(imagenet(copy)).train.y, first.train.y)
    with open(path, "rb") as file:
      assert file.read() == whole


@pytest.mark.parametrize(("make", "name"), [(cifar10, "cifar10"), (imagenet, "imagenet2012")])
def test_a_corrupt_record_is_named_and_counted(copy, make, name):
  damage(copy, name, "train")
  with pytest.raises(gp.InputError) as caught:
    load_dataset(make(copy))
  assert f"of split train in {copy}" in str(caught.value)
  assert "That makes 1, and unreadable_images allows 0" in str(caught.value)
  data = load_dataset(dataclasses.replace(make(copy), unreadable_images=1))
  whole = {"cifar10": 120, "imagenet2012": 30}[name]
  assert sum(len(part.y) for part in data[2:5]) == whole - 1


def test_a_corrupt_photograph_is_replaced_by_one_of_its_class(copy):
  # An earlier run stored the label of the damaged record, so that the damage is not noticed before
  # the photograph itself is read.
  load_dataset(imagenet(copy))
  path = glob.glob(os.path.join(copy, "imagenet2012", "*", "labels-train.npy"))[0]
  labels = np.load(path)
  damage(copy, "imagenet2012", "train")
  os.remove(path)
  load_dataset(imagenet(copy, unreadable_images=1))
  (index,) = np.flatnonzero(np.load(path) < 0)
  np.save(path, labels)
  for seed in range(10):  # stops when the record is in the training part
    data = load_dataset(imagenet(copy, unreadable_images=1), seed)
    images = data.train.x[:]
    file = lambda i: encoded(photograph(i), "JPEG")
    whole = {centre_crop(file(i), 24).tobytes(): i for i in range(30)}
    seen = [whole[image.tobytes()] for image in images]
    if len(set(seen)) < len(seen):
      break
  assert len(seen) - len(set(seen)) == 1
  assert [i % 2 for i in seen] == data.train.y.tolist()
  with pytest.raises(gp.InputError, match=f"record {index} of split train"):
    load_dataset(imagenet(copy), seed).train.x[:]


def test_an_image_of_another_shape_is_named(tmp_path):
  write_tfds("cifar10", tmp_path, (10, 10), num_classes=10, side=16)
  with pytest.raises(
    gp.InputError, match=r"record 0 of split train .* shape \(16, 16, 3\), not \(3"
  ):
    load_dataset(cifar10(tmp_path))


def test_what_is_not_there_or_cannot_be_read_is_refused(copy, directory):
  with pytest.raises(gp.InputError, match="has no folder 'cifar100': prepare it with"):
    load_dataset(dataclasses.replace(cifar10(directory), dataset="cifar100"))
  with pytest.raises(gp.InputError, match=r"images\.select is 120: cannot cut 120 of 120"):
    load_dataset(cifar10(directory, select=120))
  with pytest.raises(gp.InputError, match="image_size is 64: images of cifar10 have 32"):
    load_dataset(dataclasses.replace(cifar10(directory), image_size=64))
  with pytest.raises(gp.InputError, match=r"images\.reward is -1: it must not be negative"):
    cifar10(directory, reward=-1)
  # Writing TFRecord files would need TensorFlow. Changing the description suffices, because the
  # directory is refused for the format that the description names.
  (description,) = glob.glob(os.path.join(copy, "cifar10", "*", "dataset_info.json"))
  with open(description) as file:
    told = file.read()
  assert '"array_record"' in told
  with open(description, "w") as file:
    file.write(told.replace('"array_record"', '"tfrecord"'))
  with pytest.raises(gp.InputError, match="in the format tfrecord, which needs TensorFlow"):
    load_dataset(cifar10(copy))
  (records,) = glob.glob(os.path.join(copy, "imagenet2012", "*", "*-train.array_record*"))
  os.remove(records)
  with pytest.raises(gp.InputError, match=r"record 0 of split train .* cannot be read: open"):
    load_dataset(imagenet(copy))
  assert not glob.glob(os.path.join(copy, "imagenet2012", "*", "labels-*.npy"))
