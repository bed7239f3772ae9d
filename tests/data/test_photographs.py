"""Tests of photographs: crops against ramps worked by hand, and the order of training batches."""

import jax
import numpy as np
from PIL import Image
import pytest

import gatprune_jax as gp
from gatprune_jax.data import Photographs, Split, make_feed
from gatprune_jax.data.decoding import centre_crop, decode, random_crop
from gatprune_jax.data.encoded_files import Unreadable, read_all
from tests.data.directories import encoded, photograph

SIDE = 16


class Listed:
  """Files held in a list, with the labels 0 and 1 in turn."""

  def __init__(self, contents):
    self.contents = contents

  def __len__(self):
    return len(self.contents)

  def read(self, index):
    return self.contents[index], index % 2

  def name(self, index):
    return f"number {index}"


def ramp(width, height):
  """Returns a PNG in which red is the column index and green is the row index."""
  red, green = np.meshgrid(np.arange(width), np.arange(height))
  pixels = np.stack([red, green, np.zeros_like(red)], axis=-1).astype(np.uint8)
  return encoded(Image.fromarray(pixels), "PNG")


def make_photographs(num=12, allowed=0, broken=()):
  contents = [encoded(photograph(i), "JPEG") for i in range(num)]
  for index in broken:
    contents[index] = contents[index][:200]
  return Photographs(Listed(contents), np.arange(num) % 2, SIDE, Unreadable(allowed))


def test_grey_of_16_bits_loses_the_lower_8():
  grey = np.arange(0, 2**16, 257).reshape(16, 16).astype(np.uint16)  # 0x0000, 0x0101, 0x0202, ...
  for file_format in ("PNG", "TIFF"):
    image = decode(encoded(Image.fromarray(grey), file_format))
    np.testing.assert_array_equal(image, np.arange(256).reshape(16, 16, 1).repeat(3, 2))


@pytest.mark.parametrize(("mode", "value"), [("I", 70_000), ("F", 0.5)])
def test_pixels_of_other_ranges_are_refused(mode, value):
  files = Listed([encoded(Image.new(mode, (4, 4), value), "TIFF")])
  with pytest.raises(gp.InputError, match=f"cannot be read: its pixels have mode {mode}: save it"):
    read_all(files, 1, Unreadable(0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_of_8_bits_become_colours(mode):
  white = Image.new("RGB", (4, 4), "white").convert(mode)
  np.testing.assert_array_equal(decode(encoded(white, "TIFF")), np.full((4, 4, 3), 255))


def test_the_centre_crop_by_hand():
  # The crop has 0.875 of the shorter side, 128 of 200 x 128. So it has 112 pixels a side and begins
  # at column 44 and row 8. Each pixel of the 8 x 8 result stands for 14 columns and 14 rows and
  # has their mean.
  crop = centre_crop(ramp(200, 128), 8).astype(float)
  np.testing.assert_allclose(crop[0, :, 0], 44 + 14 * np.arange(8) + 6.5, atol=1.5)
  np.testing.assert_allclose(crop[:, 0, 1], 8 + 14 * np.arange(8) + 6.5, atol=1.5)


def test_random_crops_have_the_promised_shares_and_ratios():
  file, rng = ramp(240, 180), np.random.default_rng(0)
  shares, ratios = [], []
  for _ in range(300):
    crop = random_crop(file, 64, 0.25, rng).astype(float)
    # The centres of the second and the second last column are 61/64 of the width apart.
    width = (crop[32, -2, 0] - crop[32, 1, 0]) * 64 / 61
    height = (crop[-2, 32, 1] - crop[1, 32, 1]) * 64 / 61
    shares.append(width * height / (240 * 180))
    ratios.append(width / height)
  shares, ratios = np.array(shares), np.array(ratios)
  # Colours are rounded to whole pixels, in a rectangle some 100 pixels wide.
  slack = 0.05
  assert 0.25 - slack < shares.min() < 0.35
  assert 0.9 < shares.max() < 1 + slack
  # A share that is uniform in [1/4, 1] has the mean 5/8. Long rectangles are cut to the image,
  # which lowers the mean.
  assert 0.5 < shares.mean() < 0.625 + slack
  assert 0.75 - slack < ratios.min() < 0.85
  assert 1.2 < ratios.max() < 4 / 3 + slack


def test_photographs_look_like_an_array():
  photographs = make_photographs()
  everything = photographs[:]
  assert everything.shape == photographs.shape == (12, SIDE, SIDE, 3)
  assert everything.dtype == np.uint8
  np.testing.assert_array_equal(photographs[3:5], everything[3:5])
  np.testing.assert_array_equal(photographs.subset(np.array([7, 2]))[:], everything[[7, 2]])
  assert photographs[4:4].shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("lazy", [True, False])
def test_an_epoch_has_each_image_once_and_goes_on_from_any_batch(lazy):
  photographs = make_photographs()
  split = Split(photographs if lazy else photographs[:], np.arange(12, dtype=np.int32))
  feed = make_feed(split, 5, 1.0)
  key = jax.random.key(3)
  batches = [tuple(map(np.asarray, batch)) for batch in feed(key, 0)]
  assert [len(y) for _, y in batches] == [5, 5]
  labels = np.concatenate([y for _, y in batches])
  assert len(set(labels)) == 10
  np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), photographs[:][labels])
  ((x, y),) = feed(key, 1)
  np.testing.assert_array_equal(x, batches[1][0])
  np.testing.assert_array_equal(y, batches[1][1])
  other = np.concatenate([y for _, y in feed(jax.random.key(4), 0)])
  assert not np.array_equal(other, labels)


def test_random_crops_follow_the_key_and_the_batch():
  feed = make_feed(Split(make_photographs(), np.arange(12)), 4, 0.1)
  epochs = [[np.asarray(x) for x, _ in feed(jax.random.key(seed), 0)] for seed in (0, 0, 1)]
  np.testing.assert_array_equal(epochs[0], epochs[1])
  assert not np.array_equal(epochs[0], epochs[2])
  rest = [np.asarray(x) for x, _ in feed(jax.random.key(0), 1)]
  np.testing.assert_array_equal(rest, epochs[0][1:])


def test_unreadable_photographs_are_replaced_by_the_next_of_their_class():
  whole, broken = make_photographs()[:], make_photographs(allowed=2, broken=(3, 10))
  expected = whole.copy()
  expected[3], expected[10] = whole[5], whole[0]
  np.testing.assert_array_equal(broken[:], expected)
  # The second reading does not count the same two files again, so it stays within the limit.
  np.testing.assert_array_equal(broken[:], expected)
  with pytest.raises(gp.InputError, match=r"number 10 cannot be read: .*That makes 2, .* allows 1"):
    make_photographs(allowed=1, broken=(3, 10))[:]
  alone = make_photographs(allowed=9, broken=(3,)).subset(np.array([2, 3, 4]))
  with pytest.raises(gp.InputError, match="no image of class 1 in this part can be read"):
    alone[:]


def test_a_damaged_photograph_stops_the_training_batches():
  feed = make_feed(Split(make_photographs(broken=(3,)), np.arange(12)), 4, 0.5)
  with pytest.raises(gp.InputError, match="number 3 cannot be read"):
    list(feed(jax.random.key(0), 0))


def test_labels_without_a_class_are_named():
  files = Listed([ramp(4, 4), ramp(4, 4)])
  with pytest.raises(
    gp.InputError, match="number 1 has label 1, which is out of range: labels are"
  ):
    read_all(files, 1, Unreadable(0))


def test_only_photographs_are_cropped():
  split = Split(np.zeros((8, 4, 4, 1), np.float32), np.zeros(8, np.int32))
  with pytest.raises(gp.InputError, match=r"crop_area is 0\.5: only photographs are cropped"):
    make_feed(split, 4, 0.5)
  with pytest.raises(gp.InputError, match="unreadable_images is -1"):
    Unreadable(-1)
