"""The ledger: operations counted where they happen, added up over tiles, solves and ranks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from operator import add, sub

IDEAL_ADC_BITS = 12  # that an ideal converter is priced as


@dataclass
class Ledger:
    """Operation counts of one rank, one solve or a whole run; plain counts, except bytes and seconds.

    Args:
        inv_shots: settlings of a closed-loop INV tile, one per tile and application.
        mvm_slices: products of one matrix bit slice with one input bit slice (open-loop MVM),
            one per tile-sized block.
        mvm_shots: settlings of an open-loop array, all its slices in parallel, one per array and application.
        dac_conversions: digital-to-analog conversions, one per driven line.
        adc_conversions: analog-to-digital conversions, one per read line.
        cells_written: memory cells programmed (each polarity and slice is a cell of its own).
        tiles_programmed: tiles written, first time or again.
        tiles_reprogrammed: tiles written again because the first programming was unstable.
        host_flops: floating-point operations of the host in sparse products of the refinement loop and of the tile
            multigrid; what a digital preconditioner does is not counted.
        host_bytes: bytes those operations move, counted as if nothing stayed in a cache.
        tiles_replaced: tiles written on a spare tile, because the first one is dead or too faulty.
        mvm_slices_saved: products of slices that a progressive residual did without.
        write_pulses: write–verify pulses of the cells written, each followed by a read.
        pulses_in_turn: of these, one after the other: the slowest cell's of each row of a tile, added up over rows and
            tiles; without the multiplier's arrays, which are written beside.
        mvm_rounds: settlings of the multiplier one after the other: the input slices of a product, or one if each has
            arrays of its own; added up over ranks.
        tiles_multiplexed: tiles written again because the chip has too few of them and blocks take turns.
        inv_repeats: of the INV shots, those repeated with half the input because a line had clipped.
        settling_seconds: time that the INV shots need to settle, added up over tiles; zero for amplifiers without a
            gain–bandwidth product.
        inv_products: lines driven times lines read of all INV shots: the multiplications that as many products with
            stored inverses would take.
        amplifier_settlings: lines times the time of a shot in `settling_unit`s, added up over INV shots: what the
            energy of the amplifiers is proportional to. A settled shot takes 1/λ_min(D⁻¹G) (estimated from the probe
            shots, from above), one of amplifiers with a bandwidth the time that they take, one read earlier that long.
        rounds: applications of a bank of tiles or arrays, one after the other, added up over ranks.
        round_settlings: the longest shot of each of these rounds in the same units, added up.
        rank_bytes: bytes that ranks send each other in products, applications of tiles and scalar products.
    """

    inv_shots: int = 0
    mvm_slices: int = 0
    mvm_shots: int = 0
    dac_conversions: int = 0
    adc_conversions: int = 0
    cells_written: int = 0
    tiles_programmed: int = 0
    tiles_reprogrammed: int = 0
    host_flops: int = 0
    host_bytes: int = 0
    tiles_multiplexed: int = 0
    inv_repeats: int = 0
    settling_seconds: float = 0.0
    inv_products: int = 0
    amplifier_settlings: float = 0.0
    rounds: int = 0
    round_settlings: float = 0.0
    rank_bytes: int = 0
    tiles_replaced: int = 0
    mvm_slices_saved: int = 0
    write_pulses: int = 0
    pulses_in_turn: int = 0
    mvm_rounds: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(*map(add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Ledger) -> Ledger:
        return Ledger(*map(sub, vars(self).values(), vars(other).values()))

    def add(self, other: Ledger) -> None:
        """Add `other` to this ledger in place."""
        counts = vars(self)  # not `fields`: this is called after every shot of a bank
        for name, count in vars(other).items():
            if count:
                counts[name] += count

    def as_dict(self) -> dict[str, float]:
        """Return the counts by name, as the report stores them."""
        return asdict(self)


def settling_unit(bandwidth: float, bits: int | None) -> float:
    """Return the time of a loop whose slowest mode is 1, ln 2^(b+1)/(2π GBW) to the b bits of its ADCs, s.

    Args:
        bandwidth: gain–bandwidth product, Hz. bits: None if ideal.
    """
    return math.log(2.0) * ((bits or IDEAL_ADC_BITS) + 1) / (2.0 * math.pi * bandwidth)
