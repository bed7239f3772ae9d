"""Speed as ratios within one run: what `experiments.bench` measures."""

from collections.abc import Callable

from experiments.benchmarks.compression import half_width_speed, tracing
from experiments.benchmarks.measuring import Row, Skipped
from experiments.benchmarks.reading import reading

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
  "tracing": tracing,
  "half_width_speed": half_width_speed,
  "reading": reading,
}

__all__ = ["BENCHMARKS", "Row", "Skipped"]
