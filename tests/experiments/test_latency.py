"""Tests of `experiments.latency`, on a small network and with a table that is made by hand."""

import json

import numpy as np
import pytest

from experiments import latency
from experiments.common import dense
from experiments.common.settings import make_settings
from experiments.configs import digits_resnet8
import gatprune_jax as gp
from gatprune_jax.runs.logger import Run
from tests.channels.costs.latency_tables import table_of


@pytest.fixture
def config():
  config = digits_resnet8.get_config("runlocal")
  config.model = {"factory": "tests.experiments.tiny:make"}
  config.budgets.update({"macs": None, "params": None, "latency": 0.5})
  return config


def write_table(path, config):
  """Writes a table on which a layer takes the product of its widths, and returns it."""
  settings = make_settings(config)
  data = dense.load_data(settings)
  network = dense.make_network(settings, data).network
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  table = table_of(graph, lambda _, widths: float(np.prod(widths)), constant=5.0, block=4)
  gp.write_latency_table(path, table)


@pytest.mark.long
def test_rows_are_of_all_methods_and_within_the_budget(config, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(latency, "_MASKS", 4)
  monkeypatch.setattr(latency, "_RUNS", 2)
  write_table(tmp_path / "table.json", config)
  config.latency.table = str(tmp_path / "table.json")
  settings, workdir = make_settings(config), str(tmp_path / "run")
  run = Run(workdir, config.to_dict(), lambda step: False)
  latency.main(settings, run)
  printed = capsys.readouterr().out
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert (result["batch"], result["device"]) == (1, "abacus")
  assert result["correlation"]["masks"] == 4
  assert all(-1 <= result["correlation"][name] <= 1 for name in ("latency", "macs"))
  rows = {row["method"]: row for row in result["rows"]}
  assert list(rows)[:4] == ["dense", "l1 uniform", "l1 global", "agent"]
  budgets = [name for name in rows if name.endswith(" of the MACs")]
  assert 1 <= len(budgets) == len(rows) - 4
  for name, row in rows.items():
    assert len(row["measured"]) == 2
    assert all(each["seconds"] > 0 for each in row["measured"])
    assert 0 <= row["accuracy_before_finetune"] <= 1
    assert name in printed
  assert all(rows[name]["predicted_ratio"] <= 0.5 for name in list(rows)[1:4])
  assert [each["ratio"] for each in rows["dense"]["measured"]] == [1, 1]
  with np.load(tmp_path / "run" / "masks.npz") as masks:
    assert set(masks) == set(rows)
  assert (tmp_path / "run" / "latency_table.json").exists()
  latency.main(settings, run)
  assert capsys.readouterr().out == printed


def test_budgets_without_latency_are_refused(tmp_path):
  config = digits_resnet8.get_config("runlocal")
  run = Run(str(tmp_path / "run"), config.to_dict(), lambda step: False)
  with pytest.raises(gp.InputError, match="budgets has no latency, which is measured here: add"):
    latency.main(make_settings(config), run)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("tried", "share"),
  [
    ({0.4: 1.6}, 0.2),
    ({0.2: 1.3, 0.4: 1.6}, 0.1),  # none is fast enough
    ({0.2: 0.7}, 0.4),
    ({0.6: 0.7}, 1.0),  # never more than all
    ({0.4: 1.6, 0.2: 0.8}, 0.25),  # 0.2 more take 0.8 more, so 0.05 more take the missing 0.2
    ({0.4: 1.6, 0.2: 0.8, 0.25: 1.2}, 0.225),
    ({0.4: 1.6, 0.2: 0.8, 0.1: 0.6}, 0.25),
    ({0.5: 1.2, 0.2: 0.8, 0.4: 1.6}, 0.25),  # neighbours, though 0.5 is closer in latency
    ({0.2: 1.2, 0.3: 0.8}, 0.25),  # more MACs take less
    ({0.1: 0.2, 0.2: 1.6, 0.3: 0.8, 0.4: 1.2}, 0.35),  # of several pairs that of closest latencies
  ],
)
def test_a_budget_of_macs_is_sought_between_a_slower_and_a_faster_one(tried, share):
  assert latency.next_share(tried) == pytest.approx(share)
