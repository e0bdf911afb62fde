"""From counts to estimates: energy, time and area of the analog run, and of two digital ways to the same answer.

The digital rivals are (1) a GPU that streams CG + GAMG from HBM, or factorises a dense matrix, a roofline; (2) the same
algorithm as the chip's, with the tiles replaced by products with stored inverses in 8 or 16 bits, everything in SRAM.
The chip is compared with each on equal terms: its host, which does residuals and transfers in FP64, has the memory of
the rival, HBM or SRAM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from analogpde.cost.constants import ADC_BITS, CONSTANTS
from analogpde.cost.ledger import Ledger, settling_unit
from analogpde.errors import InvalidInput

Values = Mapping[str, float]
NOMINAL: dict[str, float] = {name: constant.value for name, constant in CONSTANTS.items()}
MEMORIES = ("hbm", "sram")
CELL_CONDUCTANCE = 20e-6  # S, mean of a cell that is on: half of the 35–40 µS windows
VALUE_BITS = 16  # of a value between host and tile, its share of the block exponent included
MESSAGE = 1e-6  # s, latency between ranks
DENSE = 0.25  # of the entries, from which on nobody would take a multigrid method
PANEL = 64  # columns of a dense factorisation at once; three kernels each: panel, rows, the rest


@dataclass(frozen=True)
class Run:
    """What a run did, as the model needs it.

    Args:
        operations: counts of all solves and programmings, over all ranks.
        programmings: how often the matrix was put on tiles.
        right_hand_sides: solves.
        iterations: outer iterations of all solves.
        unknowns, entries: of the matrix.
        ranks: that worked at once.
        tile: rows of a tile.
        adc_bits: of the output converters, None if ideal (then 12).
        bandwidth: gain–bandwidth product of the chip's own amplifiers, Hz; None: that of the constants.
        gamg_flops, gamg_bytes, gamg_kernels: of CG + GAMG for all right-hand sides, if it was run; 0: modelled.

    Raises:
        InvalidInput: a number is out of range.
    """

    operations: Ledger
    programmings: int
    right_hand_sides: int
    iterations: int
    unknowns: int
    entries: int
    ranks: int
    tile: int
    adc_bits: int | None
    bandwidth: float | None = None
    gamg_flops: float = 0.0
    gamg_bytes: float = 0.0
    gamg_kernels: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidInput: one is out of range.
        """
        for name in ("programmings", "right_hand_sides", "iterations", "unknowns", "entries", "ranks", "tile"):
            least = 1 if name in ("unknowns", "ranks", "tile") else 0
            if not getattr(self, name) >= least:
                raise InvalidInput(name, getattr(self, name), f"an integer from {least} up")
        if self.bandwidth is not None and not 0.0 < self.bandwidth < math.inf:
            raise InvalidInput("bandwidth", self.bandwidth, "a positive frequency in Hz, or None")
        for name in ("gamg_flops", "gamg_bytes", "gamg_kernels"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InvalidInput(name, getattr(self, name), "a finite number from 0 up")

    def settling(self, values: Values) -> float:
        """Return the time of a shot whose slowest mode is 1, s."""
        return settling_unit(self.bandwidth or values["bandwidth"], self.adc_bits)

    @property
    def tiles(self) -> float:
        """Tiles in use."""
        o = self.operations
        return (o.tiles_programmed - o.tiles_reprogrammed - o.tiles_multiplexed) / max(1, self.programmings)

    @property
    def dense(self) -> bool:
        """Whether the matrix is one for a factorisation."""
        return self.entries >= DENSE * self.unknowns**2

    @property
    def vectors(self) -> tuple[float, float]:
        """Bytes and flops of the host's vectors, which the ledger leaves out.

        Flexible CG reads all earlier directions and their images, half as many as iterations on average; a dozen
        vectors besides. Each sparse product streams three vectors, and the tiles' inputs and outputs are moved too.
        """
        o, mean = self.operations, self.iterations / max(1, self.right_hand_sides)
        vectors = self.iterations * self.unknowns * (min(mean, 60.0) + 12.0)
        products = 3.0 * self.unknowns * o.host_flops / (2.0 * max(1, self.entries))
        return 8.0 * (vectors + products + o.dac_conversions + o.adc_conversions), 2.0 * vectors


class Rival(NamedTuple):
    """What a digital way to the same answers needs.

    Args:
        energy, seconds: of all solves, J and s.
        made, making: energy and time of what is made once for each programming of the chip, J and s.
    """

    energy: float
    seconds: float
    made: float = 0.0
    making: float = 0.0


def adc_energy(bits: int | None, values: Values) -> float:
    """Return the energy of a conversion, J."""
    known = np.array(sorted(ADC_BITS))
    logs = np.log([ADC_BITS[int(b)] for b in known])
    return float(values["adc"] * np.exp(np.interp(min(bits or 12, 16), known, logs)))


def host(run: Run, memory: str, values: Values) -> tuple[float, float]:
    """Return energy and time of the host's part, FP64, with memory 'hbm' (a GPU) or 'sram' (beside the tiles)."""
    moved, flops = run.vectors
    moved, flops = moved + run.operations.host_bytes, flops + run.operations.host_flops
    if memory == "sram":
        return moved * values["sram_byte"] + flops * values["host_flop"], moved / values["sram_bandwidth"]
    waiting = run.operations.rounds / run.ranks * values["launches"] * values["kernel"]
    return (moved * values["hbm_byte"] + flops * values["gpu_flop"] + waiting * values["gpu_idle"],
            max(moved / values["hbm_bandwidth"], flops / values["gpu_rate"]) + waiting)


def analog_energy(run: Run, memory: str, values: Values) -> dict[str, float]:
    """Return the energy of all solves by component, J, programming apart."""
    o, v = run.operations, values
    # power V·GBW·C/merit for the time ln 2^(b+1)/(2π GBW λ): the bandwidth cancels
    amplifier = v["supply"] * v["amplifier_load"] * settling_unit(1.0, run.adc_bits) / v["amplifier_merit"]
    slow = run.settling(v)
    lines = o.dac_conversions + o.adc_conversions
    return {
        "amplifiers": o.amplifier_settlings * v["amplifiers"] * amplifier,
        "cells": o.amplifier_settlings * slow * v["cell_voltage"] ** 2 * v["cells_of_a_line"] * CELL_CONDUCTANCE,
        "converters": o.dac_conversions * v["dac"] + o.adc_conversions * adc_energy(run.adc_bits, v),
        "shift and add": o.adc_conversions * v["shift_add"],
        "network": lines * VALUE_BITS * v["link" if memory == "hbm" else "network"],
        "host": host(run, memory, values)[0],
        "ranks": o.rank_bytes * 8 * v["link"],
    }


def programming_energy(run: Run, values: Values) -> float:
    """Return the energy of writing the cells, J."""
    return run.operations.write_pulses * values["pulses"] * values["pulse_energy"]


def programming_time(run: Run, values: Values) -> float:
    """Return the time of writing, s: the rows of a tile one after the other, all tiles at once, those in turn after.

    A row takes as many pulses as its slowest cell.
    """
    o = run.operations
    of_tile = o.pulses_in_turn / max(1, o.tiles_programmed)
    again = o.tiles_reprogrammed / max(1, o.tiles_programmed)
    turns = run.programmings * (1.0 + again) + o.tiles_multiplexed / run.ranks
    return of_tile * values["pulses"] * values["pulse_time"] * turns


def analog_time(run: Run, memory: str, values: Values) -> dict[str, float]:
    """Return the time of all solves by component, s: the tiles of a round at once, rounds one after the other."""
    o, v = run.operations, values
    rounds = o.rounds / run.ranks
    products = rounds * o.mvm_shots / max(1, o.mvm_shots + o.inv_shots)
    return {
        "settling": o.round_settlings / run.ranks * run.settling(v) + products * v["mvm_settling"],
        "converters": rounds * v["adc_share"] * v["adc_time"],
        # a slice of the input settles, is converted, and the next one follows
        "multiplier": o.mvm_rounds / run.ranks * (v["mvm_settling"] + v["adc_share"] * v["adc_time"]),
        "host": host(run, memory, values)[1],
        "ranks": 0.0 if run.ranks == 1 else rounds * MESSAGE,
    }


def analog_area(run: Run, values: Values) -> dict[str, float]:
    """Return the area of the tiles in use by component, m²; two slices of differential pairs a tile."""
    v, n = values, run.tile
    return {"cells": run.tiles * 4 * n * n * v["cell_area"],
            "amplifiers": run.tiles * v["amplifiers"] * n * v["amplifier_area"],
            "converters": run.tiles * n / v["adc_share"] * v["adc_area"]}


def gpu(run: Run, values: Values) -> Rival:
    """Return what a GPU needs: roofline of flops and bytes, and its launches.

    CG + GAMG; its set-up, as that of the chip's levels, is left out. A dense matrix is factorised, once for each
    programming, and each right-hand side takes two triangular solves.
    """
    v = values
    flops, moved, kernels = run.gamg_flops, run.gamg_bytes, run.gamg_kernels
    if not moved and run.dense:
        n, sides = float(run.unknowns), run.right_hand_sides
        solves = _on_gpu(2.0 * n**2 * sides, 8.0 * n**2 * sides, 2.0 * sides, v)
        made = _on_gpu(2.0 / 3.0 * n**3, 16.0 * n**2, 3.0 * math.ceil(n / PANEL), v)
        return Rival(*solves, *(run.programmings * part for part in made))
    if not moved:
        iterations = run.right_hand_sides * v["gamg_iterations"]
        products = iterations * v["gamg_work"]
        flops = 2.0 * run.entries * products
        kernels = iterations * (12.0 * math.log10(max(10, run.unknowns)) - 2.0)  # a level for each factor of ten
        moved = (12.0 * run.entries + 24.0 * run.unknowns) * products
    return Rival(*_on_gpu(flops, moved, kernels, v))


def _on_gpu(flops: float, moved: float, kernels: float, values: Values) -> tuple[float, float]:
    """Return energy and time."""
    v, waiting = values, kernels * values["kernel"]
    return (moved * v["hbm_byte"] + flops * v["gpu_flop"] + waiting * v["gpu_idle"],
            max(moved / v["hbm_bandwidth"], flops / v["gpu_rate"]) + waiting)


def sram(run: Run, values: Values) -> Rival:
    """Return what the same algorithm with stored inverses needs; made are the inverses."""
    v, o = values, run.operations
    energy, seconds = host(run, "sram", values)
    products = o.inv_products
    energy += products * v["mac"] + o.rank_bytes * 8 * v["link"]
    waiting = 0.0 if run.ranks == 1 else o.rounds / run.ranks * MESSAGE
    made = run.programmings * run.tiles * (2.0 * run.tile**3 * v["inversion_flop"] + run.tile**2 * v["sram_byte"])
    return Rival(energy, seconds + products / v["mac_rate"] + waiting, made)


def ratios(run: Run, values: Values) -> dict[str, float]:
    """Return what the rivals need over what the chip needs, programming shared out over the right-hand sides.

    Above 1 the chip is better.
    """
    written = programming_energy(run, values)
    out = {}
    for memory in MEMORIES:
        energy = sum(analog_energy(run, memory, values).values()) + written
        seconds = sum(analog_time(run, memory, values).values()) + programming_time(run, values)
        rival = gpu(run, values) if memory == "hbm" else sram(run, values)
        out[f"energy_{memory}"] = (rival.energy + rival.made) / energy if energy else math.nan
        out[f"time_{memory}"] = (rival.seconds + rival.making) / seconds if seconds else math.nan
    return out


def break_even(run: Run, memory: str, values: Values) -> float:
    """Return after how many right-hand sides for one programming the chip has saved what writing it cost.

    Infinite if a solve costs the chip more than the rival.
    """
    rival = gpu(run, values) if memory == "hbm" else sram(run, values)
    saved = (rival.energy - sum(analog_energy(run, memory, values).values())) / max(1, run.right_hand_sides)
    spent = (programming_energy(run, values) - rival.made) / max(1, run.programmings)
    if spent <= 0.0:
        return 0.0 if saved >= 0.0 else math.inf
    return spent / saved if saved > 0.0 else math.inf


def sensitivity(run: Run) -> list[dict[str, Any]]:
    """Return what each constant, moved over its range alone, does to the energy ratios; the weightiest first."""
    bars = []
    for name, constant in CONSTANTS.items():
        ends = [ratios(run, {**NOMINAL, name: value}) for value in (constant.low, constant.high)]
        bars.append({"constant": name, **{
            memory: [ends[0][f"energy_{memory}"], ends[1][f"energy_{memory}"]] for memory in MEMORIES}})
    return sorted(bars, key=lambda bar: -max(
        abs(math.log(max(bar[m][1], 1e-300) / max(bar[m][0], 1e-300))) for m in MEMORIES))


def extremes(run: Run) -> dict[str, list[float]]:
    """Return the energy ratios with every constant at the end that is worst, and best, for the chip.

    Not a forecast: the ends of what the sources allow. Which end is worst may depend on the others (what both pay for
    the host dilutes a disadvantage, and an advantage): each constant is tried again until none moves.
    """
    out = {}
    for memory in MEMORIES:
        key, ends = f"energy_{memory}", []
        for wanted in (min, max):
            values, before = dict(NOMINAL), dict[str, float]()
            while values != before:
                before = dict(values)
                for name, constant in CONSTANTS.items():
                    found = {value: ratios(run, {**values, name: value})[key]
                             for value in (values[name], constant.low, constant.high)}
                    values[name] = wanted(found, key=found.__getitem__)
            ends.append(ratios(run, values)[key])
        out[memory] = ends
    return out


def estimate(run: Run) -> dict[str, Any]:
    """Return all estimates as plain data, the `cost` of a report."""
    rivals = {"gpu": gpu(run, NOMINAL), "sram": sram(run, NOMINAL)}
    return {
        "right_hand_sides": run.right_hand_sides,
        "modelled_gamg": not run.gamg_bytes and not run.dense,
        "dense": run.dense,
        "energy": {memory: analog_energy(run, memory, NOMINAL) for memory in MEMORIES},
        "seconds": {memory: analog_time(run, memory, NOMINAL) for memory in MEMORIES},
        "programming": {"energy": programming_energy(run, NOMINAL), "seconds": programming_time(run, NOMINAL),
                        "pulses": run.operations.write_pulses},
        "area": analog_area(run, NOMINAL),
        "digital": {name: {"energy": rival.energy, "seconds": rival.seconds, "set_up": rival.made,
                           "set_up_seconds": rival.making} for name, rival in rivals.items()},
        "ratios": ratios(run, NOMINAL),
        "ranges": extremes(run),
        "break_even": {memory: break_even(run, memory, NOMINAL) for memory in MEMORIES},
        "sensitivity": sensitivity(run)[:10],
    }
