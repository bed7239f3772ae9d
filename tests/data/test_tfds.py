"""CIFAR from a small directory in the stock format, which the test writes."""

import io
import shutil

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import Sizes, load_dataset

tfds = pytest.importorskip("tensorflow_datasets")
Image = pytest.importorskip("PIL.Image")

PER_CLASS = {"train": 12, "test": 3}


def pixels(split, index):
  """The image of an index: noise, so that no two are equal."""
  seed = index + 1000 * (split == "test")
  return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def write_cifar10(directory):
  """The stock builder's directory, with images of our own; PNG files need no TensorFlow."""
  from tensorflow_datasets.image_classification.cifar import Cifar10

  def examples(split):
    for index in range(10 * PER_CLASS[split]):
      png = io.BytesIO()
      Image.fromarray(pixels(split, index)).save(png, "PNG")
      png.seek(0)
      yield index, {"image": png, "label": index % 10, "id": f"{split}_{index}"}

  with tfds.core.registered.skip_registration():

    class Local(Cifar10):
      name = "cifar10"

      def _split_generators(self, dl_manager):
        self.info.features["label"].names = [str(label) for label in range(10)]
        return {split: examples(split) for split in PER_CLASS}

    builder = Local(data_dir=str(directory), file_format="array_record")
  builder.download_and_prepare()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  write_cifar10(path)
  return str(path)


def test_images_and_labels_arrive_in_four_balanced_parts(directory):
  data = load_dataset("cifar10", 0, directory, Sizes(train=0, reward=30, select=20, test=0))
  assert [len(part.y) for part in data[2:6]] == [70, 30, 20, 30]
  assert data.num_classes == 10
  stored = {pixels("train", i).tobytes(): i % 10 for i in range(120)}
  seen = set()
  for part in (data.train, data.reward, data.select):
    assert part.x.dtype == np.uint8
    assert (np.bincount(part.y) == len(part.y) // 10).all()
    for image, label in zip(part.x, part.y, strict=True):
      assert stored[image.tobytes()] == label
      seen.add(image.tobytes())
  assert len(seen) == 120
  assert {x.tobytes() for x in data.test.x} == {pixels("test", i).tobytes() for i in range(30)}


def test_smaller_parts(directory):
  one, other = (
    load_dataset("cifar10", seed, directory, Sizes(train=40, reward=30, select=20, test=20))
    for seed in (0, 1)
  )
  assert [len(part.y) for part in one[2:6]] == [40, 30, 20, 20]
  assert not np.array_equal(one.reward.x, other.reward.x)
  np.testing.assert_array_equal(one.test.x, other.test.x)


def test_pixels_are_scaled_as_the_published_networks_expect(directory):
  data = load_dataset("cifar10", 0, directory, Sizes(train=0, reward=30, select=20, test=0))
  x = data.test.x[:2]
  expected = (x / 255 - np.array([[[[0.485, 0.456, 0.406]]]])) / np.array(
    [[[[0.229, 0.224, 0.225]]]]
  )
  np.testing.assert_allclose(data.pixels(x), expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_there_or_cannot_be_read_is_refused(tmp_path, directory):
  sizes = Sizes(0, 30, 20, 0)
  with pytest.raises(gp.InputError, match="has no folder 'cifar100': prepare it with"):
    load_dataset("cifar100", 0, directory, sizes)
  with pytest.raises(gp.InputError, match="cannot cut 118 of 120 images off"):
    load_dataset("cifar10", 0, directory, sizes._replace(select=118))
  # Writing TFRecord files needs TensorFlow; reading stops at what the description says.
  shutil.copytree(directory, tmp_path / "copy")
  description = tmp_path / "copy" / "cifar10" / "3.0.2" / "dataset_info.json"
  told = description.read_text()
  assert '"array_record"' in told
  description.write_text(told.replace('"array_record"', '"tfrecord"'))
  with pytest.raises(gp.InputError, match="in the format tfrecord, which needs TensorFlow"):
    load_dataset("cifar10", 0, str(tmp_path / "copy"), sizes)
