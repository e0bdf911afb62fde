"""The high-precision multiplier (HP-MVM) as data: open-loop arrays whose narrow slices are put together digitally."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, choice, quantity


@dataclass(frozen=True)
class Multiplier:
    """Bit-sliced open-loop arrays. A product of one matrix slice with one input slice is read by the ADCs of the rows.

    With ideal values every slice product is read to its last digit, so that the whole is fixed-point arithmetic.
    """

    cell_bits: int = quantity("Bits of a matrix slice.", low=1, high=8, integer=True, default=3)
    input_bits: int = quantity("Bits of an input slice: what a DAC puts on a line at a time.", low=1, high=8,
                               integer=True, default=3)
    programming_error: float | None = quantity(
        "Standard deviation of a programmed conductance, fraction of the largest.", low=0.0, high=0.5, ideal=True,
        default=None)
    read_noise: float | None = quantity(
        "Standard deviation of a conductance from one product to the next, fraction of the largest.", low=0.0,
        high=0.5, ideal=True, default=None)
    adc_bits: int | None = quantity(
        "Bits of the ADC of a row, sign included; its range is the largest sum that the slices' digits can make, or "
        "one digit a code if that is less. Ideal: sums are not rounded.", low=2, high=24, integer=True, ideal=True,
        default=None)
    order: str = choice("How the products of slices are made: serial, one input slice after the other on arrays that "
                        "hold all matrix slices; parallel, on a copy of the arrays for each input slice.",
                        ("serial", "parallel"), default="serial")

    def __post_init__(self) -> None:
        check(self, "multiplier.")

    @property
    def exact(self) -> bool:
        """Whether every slice product is read to its last digit."""
        return not self.programming_error and not self.read_noise and self.adc_bits is None
