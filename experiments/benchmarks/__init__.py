"""Speed as ratios within one run: what `experiments.bench` measures."""

from collections.abc import Callable

from experiments.benchmarks.attention import (
  attention_against_jraph,
  attention_against_torch,
  attention_compilation,
  attention_size,
)
from experiments.benchmarks.compression import half_width_speed, tracing
from experiments.benchmarks.measuring import Row, Skipped

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
  "tracing": tracing,
  "half_width_speed": half_width_speed,
  "attention_against_jraph": attention_against_jraph,
  "attention_against_torch": attention_against_torch,
  "attention_size": attention_size,
  "attention_compilation": attention_compilation,
}

__all__ = ["BENCHMARKS", "Row", "Skipped"]
