"""The amplifiers of a tile: one operational amplifier a row, one inverter a column of the negative array."""

from __future__ import annotations

from dataclasses import dataclass

from analogpde.chip.fields import check, flag, quantity
from analogpde.errors import InvalidInput


@dataclass(frozen=True)
class Amplifier:
    """The operational amplifier that closes the loop of a row (INV) or reads its current (MVM).

    One pole: dv/dt = −2π GBW (u − offset) − (2π GBW / gain) v, u the voltage of its row node; or a second one behind
    it.
    """

    gain: float | None = quantity("Open-loop gain at zero frequency.", low=10, high=1e9, ideal=True, default=None)
    gain_bandwidth: float | None = quantity("Gain–bandwidth product.", unit="Hz", low=1e3, high=1e12, ideal=True,
                                            default=None)
    second_pole: float | None = quantity("Frequency of the amplifier's second pole.", unit="Hz", low=1e3, high=1e13,
                                         ideal=True, default=None)
    offset: float | None = quantity("Standard deviation of the input offset voltage from one amplifier to the next.",
                                    unit="V", low=0.0, high=0.1, ideal=True, default=None)
    swing: float | None = quantity("Largest output voltage of either sign.", unit="V", low=1e-3, high=100.0, ideal=True,
                                   default=None)
    input_conductance: float | None = quantity(
        "Conductance through which a row is driven and which loads it besides its cells; ideal: a current source.",
        unit="S", low=1e-9, high=1.0, ideal=True, default=None)
    settle_time: float | None = quantity("Time from the inputs to the reading of the outputs; ideal: settled.",
                                         unit="s", low=1e-12, high=1.0, ideal=True, default=None)
    compensated: bool = flag("Whether programming takes off the diagonal what the finite gain will add to it.")

    def __post_init__(self) -> None:
        check(self, "amplifier.")
        if self.second_pole is not None and self.gain_bandwidth is None:
            raise InvalidInput("amplifier.second_pole", self.second_pole, "nothing, while gain_bandwidth is ideal",
                               "An amplifier of infinite bandwidth has no poles: give it a gain_bandwidth.")
        if self.settle_time is not None and self.gain_bandwidth is None:
            raise InvalidInput("amplifier.settle_time", self.settle_time, "nothing, while gain_bandwidth is ideal",
                               "An amplifier of infinite bandwidth has settled at once: give it a gain_bandwidth.")
        if self.compensated and self.gain is None:
            raise InvalidInput("amplifier.compensated", True, "false, while the gain is ideal",
                               "An infinite gain adds nothing that programming could take off: give it a gain.")


@dataclass(frozen=True)
class Inverter:
    """The unity-gain inverter that drives a column of the negative array: two equal resistors and an amplifier."""

    gain: float | None = quantity("Open-loop gain of its amplifier.", low=10, high=1e9, ideal=True, default=None)
    gain_bandwidth: float | None = quantity("Gain–bandwidth product of its amplifier; its pole is at half of it.",
                                            unit="Hz", low=1e3, high=1e12, ideal=True, default=None)
    offset: float | None = quantity("Standard deviation of the input offset voltage of its amplifier.", unit="V",
                                    low=0.0, high=0.1, ideal=True, default=None)
    mismatch: float | None = quantity("Standard deviation of the ratio of its two resistors about one.",
                                      low=0.0, high=0.2, ideal=True, default=None)

    def __post_init__(self) -> None:
        check(self, "inverter.")
