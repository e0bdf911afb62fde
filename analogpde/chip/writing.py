"""The write–verify loop that brings cells to their conductances, pulse by pulse."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, quantity
from analogpde.errors import InvalidInput


@dataclass(frozen=True)
class Writing:
    """How a cell is written: pulses towards its target, each followed by a read, until the target is met.

    A pulse aims at the target, or as far as `step`, and misses by `spread`. The loop sets how many pulses a cell takes;
    what the cell is off by at the time of use, relaxation included, is the cell's programming error.
    """

    step: float | None = quantity(
        "Largest change that a pulse aims at, fraction of the largest conductance. Ideal: one write a cell, no loop.",
        low=1e-3, high=1.0, ideal=True, default=None)
    spread: float | None = quantity(
        "Standard deviation of the change by one pulse, fraction of the largest conductance.", low=0.0, high=0.5,
        ideal=True, default=None)
    tolerance: float | None = quantity(
        "Distance from the target at which the loop ends, fraction of the largest conductance. Ideal: √3 of the "
        "programming error, the window over which evenly scattered cells have that deviation.", low=1e-5, high=0.5,
        ideal=True, default=None)
    limit: int = quantity("Pulses after which a cell is given up: what stuck cells take.", low=1, high=10000,
                          integer=True, default=100)

    def __post_init__(self) -> None:
        check(self, "writing.")
        if self.step is None and (self.spread or self.tolerance):
            name = "spread" if self.spread else "tolerance"
            raise InvalidInput(f"writing.{name}", getattr(self, name), "null without a step",
                               "Without a step there is no loop: give writing.step, or -analog_pulse_step.")
