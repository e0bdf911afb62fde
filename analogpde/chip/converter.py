"""Digital-to-analog and analog-to-digital converters of a tile's lines."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, quantity


@dataclass(frozen=True)
class Converter:
    """A uniform, symmetric, mid-tread converter; one block exponent per tile and application.

    The host scales each tile's vector so that its largest entry meets the full scale, as the block
    exponent of block floating point does; without it refinement stalls (Wilkinson's fixed-point argument).
    """

    bits: int | None = quantity("Bits, sign included: codes −(2^(bits−1) − 1) … 2^(bits−1) − 1.",
                                low=2, high=24, integer=True, ideal=True, default=None)

    def __post_init__(self) -> None:
        check(self, "converter.")

    @property
    def codes(self) -> int:
        """Largest code, 2^(bits−1) − 1; 0 stands for an ideal converter."""
        return 0 if self.bits is None else 2 ** (self.bits - 1) - 1
