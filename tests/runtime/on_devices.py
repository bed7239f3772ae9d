"""Program that runs a search and trainings on as many devices as XLA_FLAGS gives.

`python -m tests.runtime.on_devices FILE` writes results that must not depend on the number of
devices. The tests in `test_mesh` run this program.
"""

import dataclasses
import sys

import jax
import numpy as np

from gatprune_jax.data import Split, make_feed
from gatprune_jax.networks import CLASSIFICATION
from gatprune_jax.runtime import mesh
from gatprune_jax.training import Recipe, train, train_candidates
from tests.conftest import Example, TwoLayers
from tests.data.test_photographs import make_photographs
from tests.search.test_search import CONFIG, make_problem, search

RECIPE = Recipe(
  epochs=2, batch_size=10, learning_rate=0.1, warmup_epochs=0.5, momentum=0.9, weight_decay=1e-4,
  label_smoothing=0.1, shift=1, flip=True, crop_area=1.0, mixup=0.2, average=0.5, distillation=0.5,
  temperature=2.0,
)  # fmt: skip


def main(path):
  e = Example(TwoLayers(), num_images=30)
  problem = make_problem(e, {"macs": 0.3})
  out, lines = {}, []
  # Each device computes one mask at a time, so that every number of devices runs the same program.
  found = search(
    problem,
    dataclasses.replace(CONFIG, chunk=1),
    0,
    lambda progress: lines.append(progress.metrics),
  )
  for name in lines[0]:
    out[f"search {name}"] = np.stack([line[name] for line in lines])
  out["search masks"], out["search scores"] = found.masks, found.scores
  for name, leaf in zip("abcdefgh", jax.tree.leaves(found.state.learner.params), strict=False):
    out[f"search parameters {name}"] = mesh.to_host(leaf)

  split, key = Split(e.x, e.y), jax.random.key(0)
  log = lambda epoch, values, variables: lines.append(values["loss"])
  lines.clear()
  trained = {
    "dense": train(e.network, CLASSIFICATION, split, RECIPE, key, log, e.network),
    "candidates": train_candidates(
      problem.constraints.graph, e.network, CLASSIFICATION, found.masks, split, RECIPE, key, log,
      e.network,
    ),
  }  # fmt: skip
  out["losses"] = np.array(lines)
  for kind, tree in trained.items():
    for keys, leaf in jax.tree.leaves_with_path(tree):
      out[f"{kind}{jax.tree_util.keystr(keys)}"] = np.asarray(leaf)

  feed = make_feed(Split(make_photographs(), np.arange(12)), 5, crop_area=0.1, shared=True)
  # The rows that fill up the share of the last device are cut off.
  for index, pair in enumerate(feed(key, 0)):
    out[f"photographs {index}"], out[f"labels {index}"] = (mesh.to_host(rows)[:5] for rows in pair)
  np.savez(path, **out)


if __name__ == "__main__":
  main(sys.argv[1])
