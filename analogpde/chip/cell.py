"""The memory cell: conductance window, levels, what a programmed conductance is off by, and how it ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogpde.chip.error_models import MODELS
from analogpde.chip.fields import check, choice, coefficients, quantity
from analogpde.errors import InvalidInput

POLYNOMIAL = "polynomial"


@dataclass(frozen=True)
class Cell:
    """One memory cell of a crossbar.

    A matrix entry is held by a differential pair, one cell per sign, or by one cell against a bias column. Unless
    `off_conductance` says otherwise, the unused cell of a pair and both cells of a zero are switched off by their
    transistor (1T1R) and carry neither current nor noise. All that is held by a pair is a difference: what both of its
    cells conduct, leaks for instance, cancels, but its noise does not.
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
    conductance_min: float | None = quantity(
        "Smallest conductance of a cell that is switched on: the lowest level. Both cells of a pair that holds an "
        "entry are then on. Ideal: levels begin at zero.", unit="S", low=1e-12, high=1e-2, ideal=True, default=None)
    programming_model: str | None = choice(
        "How the programming error depends on the conductance: a published fit, or your own in programming_polynomial. "
        "Ideal: constant, programming_error.", (*MODELS, POLYNOMIAL), ideal=True)
    programming_polynomial: tuple[float, ...] | None = coefficients(
        "Coefficients c of the standard deviation σ of a programmed conductance G, σ/Gmax = Σ c_i (G/Gmax)^i.")
    off_conductance: float | None = quantity(
        "Conductance of a cell that holds nothing. Ideal: none, a transistor switches it off.", unit="S", low=0.0,
        high=1e-2, ideal=True, default=None)
    off_error: float | None = quantity(
        "Standard deviation of off_conductance from cell to cell, fraction of the largest conductance.",
        low=0.0, high=0.5, ideal=True, default=None)
    off_read_noise: float | None = quantity(
        "Standard deviation of off_conductance from shot to shot, fraction of the largest conductance.",
        low=0.0, high=0.5, ideal=True, default=None)
    sign_mapping: str = choice(
        "How signs are held. pair: two cells an entry, one of them subtracted by an inverter; bias: one cell an entry, "
        "all conductances shifted up by the same amount, which a bias column subtracts again.", ("pair", "bias"),
        default="pair")
    slices: int = quantity("Cells in parallel, each of 2^−bits the weight of the one before, that count as one: for "
                           "cells of few bits.", low=1, high=8, integer=True, default=1)
    level_spacing: str = choice(
        "How the levels lie between the smallest and the largest conductance. linear: equal distances; geometric: "
        "equal ratios, from conductance_min.", ("linear", "geometric"), default="linear")
    level_list: tuple[float, ...] | None = coefficients(
        "Conductances of the 2^bits levels, ascending, from conductance_min (zero if ideal) to conductance_max. Ideal: "
        "as level_spacing says.", unit="S", most=256)

    def __post_init__(self) -> None:
        check(self, "cell.")
        own = self.programming_polynomial
        if (own is None) != (self.programming_model != POLYNOMIAL):
            raise InvalidInput("cell.programming_polynomial", own, f"coefficients with programming_model "
                               f"{POLYNOMIAL!r}, null with any other", "Give both or neither.")
        if self.programming_model is not None and self.programming_error is not None:
            raise InvalidInput("cell.programming_error", self.programming_error, "null beside a programming_model",
                               "A constant error and one that depends on the conductance exclude each other.")
        if own is not None:
            x = np.linspace(1.0 - self.window, 1.0, 129)
            sigma = np.polynomial.polynomial.polyval(x, own)
            if sigma.min() < 0.0:
                raise InvalidInput("cell.programming_polynomial", own, "a standard deviation, at least zero for every "
                                   "conductance of the window", f"It is {sigma.min():.3g} at "
                                   f"{x[sigma.argmin()]:.2f} of the largest conductance.")
        if self.programming_model in MODELS:
            model, top = MODELS[self.programming_model], 1e6 * self.conductance_max
            if not model.low < top <= model.high * (1 + 1e-9):
                raise InvalidInput("cell.conductance_max", self.conductance_max,
                                   f"above {1e-6 * model.low:g} to {1e-6 * model.high:g} S with the model "
                                   f"{self.programming_model!r}", "The fit says nothing about other conductances.")
        for name in ("conductance_min", "off_conductance"):
            value = getattr(self, name)
            if value is not None and value >= 0.9 * self.conductance_max:
                raise InvalidInput(f"cell.{name}", value, f"below 0.9 of conductance_max, {self.conductance_max:g} S")
        self._check_levels()
        if self.off_conductance is None and (self.off_error or self.off_read_noise):
            raise InvalidInput("cell.off_conductance", None, "a conductance, if off cells have errors")

    @property
    def levels(self) -> int | None:
        """Nonzero levels of one polarity, 2^bits − 1 (None: continuous)."""
        return None if self.bits is None else 2**self.bits - 1

    def _check_levels(self) -> None:
        """Refuse levels that do not fit the window, or what is not written for uneven ones."""
        lowest = self.conductance_min or 0.0
        if self.level_list is not None:
            levels = np.array(self.level_list)
            fits = self.bits is not None and len(levels) == 2**self.bits and (np.diff(levels) > 0).all()
            if not fits or not np.allclose(levels[[0, -1]], [lowest, self.conductance_max], rtol=1e-9, atol=1e-18):
                raise InvalidInput("cell.level_list", self.level_list, "2^bits ascending conductances from "
                                   f"{lowest:g} to {self.conductance_max:g} S", "They begin at conductance_min and end "
                                   "at conductance_max.")
            if self.level_spacing != "linear":
                raise InvalidInput("cell.level_spacing", self.level_spacing, "linear beside a level_list")
        elif self.level_spacing == "geometric" and (self.bits is None or not lowest):
            raise InvalidInput("cell.level_spacing", self.level_spacing, "linear without bits and a conductance_min",
                               "Equal ratios need a number of levels and a smallest conductance above zero.")
        if self.places is not None and self.sign_mapping == "bias":
            raise InvalidInput("cell.sign_mapping", "bias", "pair for levels that are not evenly spaced",
                               "A bias column shifts levels: the sums are none of them.")

    @property
    def places(self) -> NDArray[np.float64] | None:
        """Places of the levels in the window, 0 … 1; None: evenly spaced, or continuous."""
        if self.bits is None or (self.level_list is None and self.level_spacing == "linear"):
            return None
        lowest = self.conductance_min or 0.0
        if self.level_list is not None:
            levels = np.array(self.level_list)
        else:
            levels = lowest * (self.conductance_max / lowest) ** (np.arange(2**self.bits) / (2**self.bits - 1))
        return (levels - lowest) / (self.conductance_max - lowest)

    @property
    def level_step(self) -> float | None:
        """Mean distance of two levels in S (None: continuous)."""
        return None if self.levels is None else self.conductance_max * self.window / self.levels

    @property
    def window(self) -> float:
        """Largest difference that a pair holds, as a fraction of the largest conductance."""
        return 1.0 - (self.conductance_min or 0.0) / self.conductance_max

    @property
    def plain(self) -> bool:
        """Whether the cells of all levels are alike and those that hold nothing are off: one number says all."""
        return (self.programming_model is None and self.conductance_min is None and not self.crowded)

    @property
    def crowded(self) -> bool:
        """Whether cells that hold zeros make noise, so that every cell under a block counts."""
        return self.sign_mapping == "bias" or bool(self.off_error or self.off_read_noise)

    def programming_deviation(self, level: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the standard deviation of one programmed cell, fraction of the largest conductance.

        Args:
            level: place in the window, 0 its lowest conductance and 1 its largest; any shape.
        """
        x = 1.0 - self.window * (1.0 - np.asarray(level, float))
        if self.programming_model is None:
            return np.full(x.shape, self.programming_error or 0.0)
        if self.programming_polynomial is not None:
            sigma = np.polynomial.polynomial.polyval(x, self.programming_polynomial)
        else:
            top = 1e6 * self.conductance_max
            model = MODELS[self.programming_model]
            # below the lowest conductance measured the error there is taken
            sigma = np.polynomial.polynomial.polyval(np.maximum(x * top, model.low), model.coefficients) / top
        return np.maximum(sigma, 0.0)  # between the points that were looked at, or of a fit near its end

    @property
    def typical_error(self) -> float:
        """Root mean square of the programming error over the window, fraction of the largest conductance."""
        if self.programming_model is None:
            return self.programming_error or 0.0
        return float(np.sqrt(np.mean(self.programming_deviation(np.linspace(0.0, 1.0, 33)) ** 2)))
