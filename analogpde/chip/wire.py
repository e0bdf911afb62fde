"""The wires of a crossbar."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, choice, quantity

ELIMINATIONS = ("auto", "exact", "approximate")


@dataclass(frozen=True)
class Wire:
    """Resistance of the wire from one cell to the next.

    Columns are driven at the first row, rows are sensed at the first column; the first segment lies before the first
    cell. The arrays of positive and of negative entries have wires of their own and meet at the row's amplifier.

    Args:
        elimination: how the emulator finds what the amplifiers see. exact: elimination of all nodes of the wires;
            approximate: entry by entry, with an error estimate; auto: exact up to 128 rows.
    """

    row: float | None = quantity("Resistance of a segment of a row.", unit="Ω", low=0.0, high=1e4, ideal=True,
                                 default=None)
    column: float | None = quantity("Resistance of a segment of a column.", unit="Ω", low=0.0, high=1e4, ideal=True,
                                    default=None)
    elimination: str = choice("How the emulator finds what the amplifiers see: exact, entry by entry, or auto.",
                              ELIMINATIONS, default="auto")

    def __post_init__(self) -> None:
        check(self, "wire.")

    @property
    def ideal(self) -> bool:
        """Whether there is no resistance at all."""
        return not self.row and not self.column
