"""The memory cell: conductance window, levels and the two errors of a conductance."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, quantity


@dataclass(frozen=True)
class Cell:
    """One memory cell of a crossbar.

    A matrix entry is held by a differential pair, one cell per sign; the unused cell, and both cells
    of a zero, are switched off by their transistor (1T1R) and carry neither current nor noise.
    """

    bits: int | None = quantity("Bits of a cell: 2^bits levels, the lowest of them zero.",
                                low=1, high=16, integer=True, ideal=True, default=None)
    programming_error: float | None = quantity(
        "Standard deviation of a programmed conductance about its level, fraction of the largest conductance.",
        low=0.0, high=0.5, ideal=True, default=None)
    read_noise: float | None = quantity(
        "Standard deviation of a conductance from one shot to the next, fraction of the largest conductance.",
        low=0.0, high=0.5, ideal=True, default=None)
    conductance_max: float = quantity("Largest conductance.", unit="S", low=1e-9, high=1e-2, default=35e-6)

    def __post_init__(self) -> None:
        check(self, "cell.")

    @property
    def levels(self) -> int | None:
        """Nonzero levels of one polarity, 2^bits − 1 (None: continuous)."""
        return None if self.bits is None else 2**self.bits - 1
