"""How conductances move between programming and use, and what of a tile does not work at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analogpde.chip.fields import check, quantity


@dataclass(frozen=True)
class Drift:
    """What time does to a programmed conductance.

    A cell of conductance G0 conducts after the time t

        G = G0 (1 + t/t0)^−ν + Gmax ln(1 + t/t0) (m + s ζ),   ν ~ N(exponent, spread²), ζ ~ N(0, 1) per cell

    The first term is the structural relaxation of phase-change memory, the second that of filamentary RRAM. The host
    knows the age of its tiles and scales answers by the mean decay (global drift compensation, Joshi et al. 2020);
    what remains is the spread.
    """

    time: float | None = quantity("Time since programming at which the tiles are used. Ideal: at once.", unit="s",
                                  low=0.0, high=1e10, ideal=True, default=None)
    start: float = quantity("t0: time after programming from which drift counts.", unit="s", low=1e-9, high=1e6,
                            default=1.0)
    exponent: float | None = quantity("Mean of the drift exponent ν.", low=0.0, high=1.0, ideal=True, default=None)
    spread: float | None = quantity("Standard deviation of ν from cell to cell.", low=0.0, high=0.5, ideal=True,
                                    default=None)
    relaxation: float | None = quantity(
        "s: standard deviation that relaxation adds each time the age grows e-fold, fraction of the largest "
        "conductance.", low=0.0, high=0.1, ideal=True, default=None)
    relaxation_mean: float | None = quantity(
        "m: mean change by relaxation each time the age grows e-fold, fraction of the largest conductance.",
        low=-0.1, high=0.1, ideal=True, default=None)

    def __post_init__(self) -> None:
        check(self, "drift.")

    @property
    def any(self) -> bool:
        """Whether conductances differ from what was programmed."""
        return bool(self.time) and bool(self.exponent or self.spread or self.relaxation or self.relaxation_mean)

    @property
    def folds(self) -> float:
        """ln(1 + t/t0)."""
        return math.log1p((self.time or 0.0) / self.start)

    @property
    def decay(self) -> float:
        """Mean of (1 + t/t0)^−ν: what the host scales answers by."""
        return math.exp(-self.folds * (self.exponent or 0.0) + 0.5 * (self.folds * (self.spread or 0.0)) ** 2)

    @property
    def decayed_deviation(self) -> float:
        """Standard deviation of exp(−ν ln(1 + t/t0)) over its mean: of a cell, as a fraction of its conductance."""
        return math.sqrt(math.expm1(min((self.folds * (self.spread or 0.0)) ** 2, 50.0))) if self.any else 0.0

    @property
    def relaxed_deviation(self) -> float:
        """Standard deviation of the relaxation over the mean decay, fraction of the largest conductance."""
        return self.folds * (self.relaxation or 0.0) / self.decay if self.any else 0.0


@dataclass(frozen=True)
class Faults:
    """What does not work, as fractions; which cells, lines and tiles they are is drawn once for each tile.

    Write–verify finds stuck cells and dead lines when a tile is programmed, the probe of its health what is left:
    pairs are programmed around a cell stuck at its largest conductance, blocks are placed on lines that work, and what
    no tile holds well is programmed on a spare one.
    """

    stuck_low: float | None = quantity("Cells stuck at zero.", low=0.0, high=0.2, ideal=True, default=None)
    stuck_high: float | None = quantity("Cells stuck at the largest conductance.", low=0.0, high=0.2, ideal=True,
                                        default=None)
    dead_rows: float | None = quantity("Row lines that are broken.", low=0.0, high=0.5, ideal=True, default=None)
    dead_columns: float | None = quantity("Column lines that are broken.", low=0.0, high=0.5, ideal=True, default=None)
    dead_tiles: float | None = quantity("Tiles that give no answer.", low=0.0, high=0.5, ideal=True, default=None)
    spares: int = quantity("Spare tiles that a block may be moved to in turn, if its tile is dead or too faulty.",
                           low=0, high=7, integer=True, default=7)

    def __post_init__(self) -> None:
        check(self, "faults.")

    @property
    def any(self) -> bool:
        """Whether anything may not work."""
        return bool(self.stuck_low or self.stuck_high or self.dead_rows or self.dead_columns or self.dead_tiles)

    def dead_pairs(self, slices: int = 2) -> float:
        """Return which fraction of a tile's row-column pairs serves no block row.

        Row i of a block needs a row line, the column line that its amplifier drives, and where they cross a diagonal
        cell that is not stuck at zero, in each of `slices` slices.
        """
        works = (1.0 - (self.dead_rows or 0.0)) * (1.0 - (self.dead_columns or 0.0))
        return 1.0 - works * (1.0 - (self.stuck_low or 0.0)) ** slices

    def planned_lines(self, size: int) -> int:
        """Return how many rows to plan a block with, so that all but one tile in a thousand can hold it."""
        dead = self.dead_pairs()
        return max(1, math.floor(size * (1.0 - dead) - 3.0 * math.sqrt(size * dead * (1.0 - dead))))
