"""Tests of the tables, and of the mains of summary, collapse and benchmark."""

import json
import os
import subprocess
import sys

from flax import linen as nn
import numpy as np
import pytest

from experiments import bench as bench_main
from experiments import collapse as collapse_main
from experiments import summary as summary_main
from experiments.benchmarks import overview
import gatprune_jax as gp
from gatprune_jax.runs import workdir
from gatprune_jax.runs.plot import plot_comparison
from gatprune_jax.runs.report import CompareRow, Row, comparison, comparison_over_seeds, summary


def row(method, macs, accuracy):
  return Row(method, macs, 10, macs / 2000, 0.1, accuracy, 0.99, accuracy - 0.1, 0.98)


def cells(table):
  return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_comparison_by_hand():
  header, _, body = cells(comparison([row("agent", 1234, 0.5)]))
  assert dict(zip(header, body, strict=True)) == {
    "method": "agent", "MACs": "1,234", "params": "10", "MACs ratio": "0.6170",
    "params ratio": "0.1000", "select before": "50.0", "select after": "99.0",
    "test before": "40.0", "test after": "98.0",
  }  # fmt: skip


def test_summary_by_hand():
  # Two runs at 0.50 and 0.60 have the mean 0.55 and the sample standard deviation 0.0707.
  table = cells(summary([[row("agent", 1000, 0.5)], [row("agent", 1000, 0.6)]]))
  body = dict(zip(table[0], table[2], strict=True))
  assert body["MACs ratio"] == "0.5000 ± 0.0000"
  assert body["select before"] == "55.0 ± 7.1"
  others = [
    row("agent", 1000, 0.5)._replace(others={"activation_bytes": share}) for share in (0.2, 0.4)
  ]
  table = cells(summary([[other] for other in others]))
  assert dict(zip(table[0], table[2], strict=True))["activation_bytes ratio"] == "0.3000 ± 0.1414"
  with pytest.raises(gp.InputError, match="runs that constrain the same resources"):
    summary([[others[0]], [row("agent", 1000, 0.5)]])
  with pytest.raises(gp.InputError, match="two or more runs of the same methods"):
    summary([[row("agent", 1000, 0.5)]])
  with pytest.raises(gp.InputError, match="two or more runs of the same methods"):
    summary([[row("agent", 1000, 0.5)], [row("l1", 1000, 0.5)]])


def compare_row(method, seed, before, after):
  told = {"level": "compensated", "epochs": 8, "cost": 12.5}
  return CompareRow(method, 0.2, seed, 0.2, 0.1, before, after, after - 0.1, 7, 2.0, [0.5], **told)


def test_comparison_over_seeds_by_hand():
  rows = [compare_row("agent", 0, 0.5, 0.9), compare_row("agent", 1, 0.6, 0.9)]
  text = comparison_over_seeds(rows, finetuned=True)
  told = "(masks scored: compensated; epochs of fine-tuning: 8)"
  assert text.startswith(f"At most 0.2 of the MACs {told}:\n\n")
  header, _, body = cells(text.split("\n\n")[1])
  assert dict(zip(header, body, strict=True)) == {
    "method": "agent", "seeds": "2", "before, select": "55.0 ± 7.1", "after, select": "90.0 ± 0.0",
    "after, test": "80.0 ± 0.0", "masks": "7", "cost, epochs": "12", "seconds": "2",
  }  # fmt: skip
  limited = [row._replace(costs={"macs": 0.2, "params": 0.1 * (1 + row.seed)}) for row in rows]
  header, _, body = cells(comparison_over_seeds(limited, finetuned=True).split("\n\n")[1])
  columns = dict(zip(header, body, strict=True))
  assert (columns["macs ratio"], columns["params ratio"]) == ("0.2000", "0.1500")
  assert "after" not in comparison_over_seeds(rows, finetuned=False)
  mixed = [rows[0], rows[1]._replace(level="as it is", epochs=30)]
  told = "(masks scored: compensated and as it is; epochs of fine-tuning: 8 and 30)"
  assert told in comparison_over_seeds(mixed, finetuned=True)
  told = "(masks scored: compensated; epochs of fine-tuning: 8)"
  # The second budget gives 0.2 more for each seed, so the averages over budgets are 60 and 70.
  rows += [compare_row("agent", 0, 0.7, 0.9), compare_row("agent", 1, 0.8, 0.9)]
  rows[2:] = [row._replace(budget=0.1) for row in rows[2:]]
  text = comparison_over_seeds(rows, finetuned=False)
  assert [part for part in text.split("\n\n") if "|" not in part] == [
    f"At most 0.2 of the MACs {told}:", f"At most 0.1 of the MACs {told}:",
    "Mean over the budgets:",
  ]  # fmt: skip
  header, _, body = cells(text.split("\n\n")[-1])
  columns = dict(zip(header, body, strict=True))
  assert columns["before, select"] == "65.0 ± 7.1"
  assert columns["before, test"] == "80.0 ± 0.0"
  # A method that is at one of two budgets only has no mean over both.
  once = [compare_row("l1 global", seed, 0.99, 0.99) for seed in (0, 1)]
  with_one_more = comparison_over_seeds([*rows, *once], finetuned=False).split("\n\n")
  assert "l1 global" in with_one_more[1]
  assert with_one_more[-1] == text.split("\n\n")[-1]


def test_a_method_is_drawn_where_it_is(tmp_path):
  # A mean over no rows would be a warning, which is an error here.
  rows = [compare_row("agent", 0, 0.5, 0.9), compare_row("l1 global", 0, 0.5, 0.9)]
  rows.append(rows[0]._replace(budget=0.1))
  plot_comparison(rows, ["agent"], True, str(tmp_path / "front.png"))
  assert (tmp_path / "front.png").exists()


def test_the_summary_main_reads_workdirs(tmp_path, capsys):
  for seed, accuracy in ((0, 0.5), (1, 0.6)):
    rows = [row("dense", 2000, 1.0), row("l1", 1000, 0.3), row("agent", 1000, accuracy)]
    result = {"seed": seed, "methods": [r._asdict() for r in rows]}
    with workdir.claim(str(tmp_path / str(seed)), "prune", {}):
      workdir.write_result(str(tmp_path / str(seed)), result)
  summary_main.main(["summary", str(tmp_path / "0"), str(tmp_path / "1")])
  out = capsys.readouterr().out
  assert "| l1 " in out
  assert "seed 1: before fine-tuning the agent has 60.0, the best classical pruner 30.0" in out
  with workdir.claim(str(tmp_path / "other"), "train", {}):
    workdir.write_result(str(tmp_path / "other"), {})
  with workdir.claim(str(tmp_path / "odd"), "prune", {}):
    (tmp_path / "odd" / "result.json").mkdir()
  for arguments in ([], *([str(tmp_path / name)] for name in ("none", "other", "odd"))):
    with pytest.raises(SystemExit) as stop:
      summary_main.main(["summary", *arguments])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_collapse_main_refuses_what_has_no_metrics(tmp_path, capsys):
  path, rows = str(tmp_path / "run"), [compare_row("agent", seed, 0.5, 0.9) for seed in (0, 1)]
  metrics = tmp_path / "run" / "seed0" / "metrics.jsonl"

  def refusal():
    with pytest.raises(SystemExit) as stop:
      collapse_main.main(["collapse", path])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line

  with workdir.claim(path, "compare", {}):
    workdir.write_result(path, {})
  assert "compare.json cannot be read: No such file or directory" in refusal()
  workdir.write_json(os.path.join(path, "compare.json"), [row._asdict() for row in rows])
  assert f"error: {metrics} cannot be read: No such file or directory" == refusal()
  metrics.parent.mkdir()
  metrics.write_text('{"phase": "dense", "step": 1}\n')
  assert f"error: {metrics} has no update of 'agent' at budget 0.2" == refusal()
  metrics.write_text("{\n")
  assert f"error: {metrics} is damaged: " in refusal()


def test_a_network_described_by_hand():
  fn = lambda v, x: nn.relu(x @ v["a"] + v["bias"][None]) @ v["b"]
  variables = {"a": np.ones((3, 4)), "bias": np.ones(4), "b": np.ones((4, 2))}
  text = gp.describe(gp.trace(fn, variables, np.ones((1, 3))))
  # The network has 3 * 4 + 4 * 2 multiply-adds, and 4 parameters more. Without the group, nothing
  # of the network is left but the input of 3 numbers and the output of 2. Beside the input, the
  # results of the first layer and of the second one are in memory at once.
  assert text.splitlines()[0] == (
    "4 channels in 1 groups; 20 MACs an example, 24 parameters, 96 bytes of weights, at most 36 "
    "bytes of activations at once"
  )
  row = " ".join(next(line for line in text.splitlines() if line.startswith("a ")).split())
  assert row == "a 4 100.0 % 100.0 % 100.0 % 44.4 % no a axis 1"
  for line in ("b axis 0", "bias axis 0", "output of the model", "contracted with what has no"):
    assert line in text


def run_bench(folder, *arguments):
  """Runs the benchmark in a real process, with an empty folder as the working directory."""
  command = [sys.executable, "-m", "experiments.bench", *arguments]
  environment = {**os.environ, "PYTHONPATH": os.getcwd()}
  return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_benchmark_writes_what_it_prints(tmp_path):
  done = run_bench(tmp_path, "--out=bench.json", "--only=tracing")
  assert done.returncode == 0, done.stderr
  rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
  assert [row["name"].split()[0] for row in rows] == ["trace", "compact"]
  for row in rows:
    assert row["ratio"] == row["reference_seconds"] / row["seconds"] > 0
    assert f"{row['ratio']:.2f}" in done.stdout


def test_a_benchmark_without_its_peer_is_skipped(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
  assert list(bench_main.rows_of("scoring_against_torch")) == []
  reason = "scoring_against_torch skipped: torch is not installed: pip install torch"
  assert capsys.readouterr().err.startswith(reason)
  assert overview().startswith("torch: missing, pip install torch")


def test_peers_are_listed(tmp_path):
  done = run_bench(tmp_path, "--peers")
  assert done.returncode == 0, done.stderr
  assert "pip install torch" in done.stdout
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "error: --out is None: name a file that does not exist yet"),
    (["--out=new.json", "--only=nothing"], "error: --only names nothing: choose from tracing"),
  ],
)
def test_the_benchmark_refuses_what_it_cannot_do(arguments, message, tmp_path):
  done = run_bench(tmp_path, *arguments)
  assert done.returncode == 1
  assert message in done.stderr
  assert list(tmp_path.iterdir()) == []
