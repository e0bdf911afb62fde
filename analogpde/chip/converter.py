"""Digital-to-analog and analog-to-digital converters of a tile's lines."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, quantity
from analogpde.errors import InvalidInput

_LEAST_CODES = 4  # two bits, as aihwkit's bound management keeps; with fewer, halving loses more than clipping does


@dataclass(frozen=True)
class Converter:
    """A uniform, symmetric, mid-tread converter; one block exponent per tile and application.

    The host scales each tile's vector so that its largest entry meets the full scale, as the block
    exponent of block floating point does; without it refinement stalls (Wilkinson's fixed-point argument).
    An ADC with a range does not follow the vector: it clips what is beyond and wastes codes on what is small.
    """

    bits: int | None = quantity("Bits, sign included: codes −(2^(bits−1) − 1) … 2^(bits−1) − 1.",
                                low=2, high=24, integer=True, ideal=True, default=None)
    range: float | None = quantity(
        "Full scale. Ideal: of a DAC, what drives no output of a tile beyond the swing, found at programming; of an "
        "ADC, the tile's largest output.", unit="V", low=1e-6, high=100.0, ideal=True, default=None)
    offset: float | None = quantity("Standard deviation of the offset from line to line, fraction of the full scale.",
                                    low=0.0, high=0.5, ideal=True, default=None)
    noise: float | None = quantity("Standard deviation of the noise of one conversion, fraction of the full scale.",
                                   low=0.0, high=0.5, ideal=True, default=None)

    calibrated: float | None = quantity(
        "ADCs only. Full scale of those of an open-loop array, the same for all vectors: this many times its largest "
        "output for random inputs at programming. Ideal: follows each shot.", low=0.1, high=10.0, ideal=True,
        default=None)

    def __post_init__(self) -> None:
        check(self, "converter.")
        if self.calibrated is not None and self.range is not None:
            raise InvalidInput("converter.calibrated", self.calibrated, "null beside a range",
                               "Both set the full scale.")

    @property
    def codes(self) -> int:
        """Largest code, 2^(bits−1) − 1; 0 stands for an ideal converter."""
        return 0 if self.bits is None else 2 ** (self.bits - 1) - 1

    @property
    def least_part(self) -> float:
        """Smallest part of the full scale that bound management goes down to; 0 for an ideal converter."""
        return _LEAST_CODES / self.codes if self.codes else 0.0

    @property
    def rounds_only(self) -> bool:
        """Whether rounding is its only error."""
        return self.range is None and self.calibrated is None and not self.offset and not self.noise
