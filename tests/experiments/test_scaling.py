"""Tests of the predicted scaling against arithmetic done by hand."""

import pytest

from experiments import scaling
from tests.experiments.mains import run

CHIP = scaling.Chip(
  flops=1000, bandwidth=100, hop=1, slice_chips=16, outer_bandwidth=200, outer_latency=50
)
NETWORK = scaling.Architecture(macs=5, params=25, norms=2, norm_channels=10)
WORK = scaling.Work(masks=8, calibration=2, reward=8, confirmation=3, batch=32, utilisation=0.5)


def test_one_chip_scores_every_mask_and_sends_nothing():
  # A mask takes 10 images of 2 * 5 FLOP at 500 FLOP a second: 0.2 s. Confirming one mask takes 5
  # images: 0.1 s.
  seconds = lambda share: scaling.update_seconds(CHIP, NETWORK, WORK, share, 1)
  assert seconds(0) == pytest.approx(8 * 0.2 + 0.1)
  # At a serial share of one half, policy and critic take as long as everything else.
  assert seconds(0.5) == pytest.approx(2 * 1.7)


def test_masks_are_whole():
  # With 16 chips and 8 masks, half of the chips score one mask each. Gathering the scores takes 4
  # hops and 64 bytes less a sixteenth.
  seconds = scaling.update_seconds(CHIP, NETWORK, WORK, 0, 16)
  assert seconds == pytest.approx(0.2 + 0.1 + 4 + 64 * 15 / 16 / 100)
  same = scaling.update_seconds(CHIP, NETWORK, WORK._replace(masks=3), 0, 2)
  assert same == pytest.approx(2 * 0.2 + 0.1 + 2**0.5 + 24 / 2 / 100)


def test_slices_add_their_latency_and_bandwidth():
  # The gather takes 4 hops within a slice of 16, then 50 s and 64 bytes at 200 bytes a second.
  seconds = scaling.gather_seconds(CHIP, 64, 32)
  assert seconds == pytest.approx(4 + 50 + 64 * 31 / 32 / 100 + 64 / 200)


def test_a_step_of_training():
  # 4 chips have 8 images each, which are 3 * 80 FLOP at 500 FLOP a second. The all-reduces are
  # twice two layers of 2 * 4 * 5 bytes, and 100 bytes of gradients. An all-reduce takes twice 2
  # hops and three quarters of its bytes.
  reduce = lambda total: 2 * (2 + total * 3 / 4 / 100)
  seconds = scaling.step_seconds(CHIP, NETWORK, WORK, 4)
  assert seconds == pytest.approx(3 * 80 / 500 + 4 * reduce(40) + reduce(100))


def test_efficiency_is_one_where_nothing_is_repeated():
  assert scaling.efficiency(lambda devices: 12 / devices, 6) == pytest.approx(1)
  assert scaling.efficiency(lambda devices: 12, 6) == pytest.approx(1 / 6)


def test_the_main_prints_its_tables_and_refuses_bad_flags():
  done = run("scaling", "--devices=1,4")
  assert done.returncode == 0, done.stderr
  # The work is 32 masks on 512 + 1500 images of 2 * 40,551,040 FLOP each.
  assert f"{32 * 2012 * 2 * 40551040:.3g}" in done.stdout
  assert "| resnet50  | 4,089,184,256 |   25,557,032 |" in done.stdout
  for flag, words in {
    "--devices=²": "--devices=²: give positive whole numbers",
    "--devices=4,0": "--devices=4,0: give positive whole numbers",
    "--serial_share=1": "--serial_share=1.0: it must be",
    "more": "argument 'more' is not a flag",
  }.items():
    done = run("scaling", flag)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert words in line
