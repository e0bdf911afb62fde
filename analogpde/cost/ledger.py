"""The ledger: operations counted where they happen, added up over tiles, solves and ranks."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, fields


@dataclass
class Ledger:
    """Operation counts of one rank, one solve or a whole run; all are plain counts except bytes.

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
        tiles_multiplexed: tiles written again because the chip has too few of them and blocks take turns.
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
    tiles_replaced: int = 0
    mvm_slices_saved: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Ledger) -> Ledger:
        return Ledger(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def add(self, other: Ledger) -> None:
        """Add `other` to this ledger in place."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name, as the report stores them."""
        return asdict(self)
