"""The tile multigrid in one process: the levels of PC analog and its V(1,1) cycle, on SciPy matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.errors import ProgrammingFailed
from analogpde.options import check_core
from analogpde.patches.blocks import cut_blocks, gather, scatter_cores
from analogpde.patches.equilibration import SPREAD, left, scan, slope, uneven, votes, words
from analogpde.patches.grow import SMALL_TILE, LocalMatrix, make_patches, measure_couplings
from analogpde.patches.prolong import find_bonds, islands, tentative, tentative_rows
from analogpde.patches.quality import slow_cores, want_small_cores
from analogpde.patches.rules import (
    LARGEST_COMPLEXITY,
    LARGEST_SHIFT_OF_P,
    LEAST_SHIFT,
    SMOOTHING_WEIGHT,
    STALLED,
    STRENGTH,
    choose_slices,
    choose_truncation,
    judge_couplings,
    mostly_border,
    sampled_cost,
    smoothing_sweeps,
)
from analogpde.patches.smooth import Rows, find_orders, smooth
from analogpde.refine.modes import softness
from analogpde.tile.blockamc import DEEPEST, depth_needed, program_blocks
from analogpde.tile.blocks import Blocks


@dataclass(frozen=True)
class Settings:
    """How a matrix is to be put on tiles.

    Args:
        chip, seed: the machine.
        blockamc: how often a block may be halved.
        levels, core, overlap, strength, truncation, shift, slices, coarse_slices, coarse: options of PC analog.
    """

    chip: Chip
    seed: int
    blockamc: int
    levels: int
    core: int | None
    overlap: int
    strength: float | None
    truncation: float | None
    shift: float
    slices: int | None
    coarse_slices: int
    coarse: str

    def __post_init__(self) -> None:
        check_core(self.core, self.largest_block)

    @property
    def largest_block(self) -> int:
        """Rows of the largest block that tiles solve."""
        return self.chip.lines << self.blockamc

    @property
    def programming(self) -> dict[str, Any]:
        """What `program_blocks` needs of it."""
        return {"chip": self.chip, "shift": self.shift, "seed": self.seed}


class Whole:
    """A matrix on one tile, or by BlockAMC on several."""

    def __init__(self, matrix: sp.csr_matrix, settings: Settings, level: int, first_tile: int) -> None:
        blocks = Blocks.from_dense(matrix.toarray()[None], first_tile)
        fine = settings.slices or choose_slices(*sampled_cost(blocks, settings.chip, settings.shift))
        self.softness = softness(matrix.toarray())
        self.tiles, self.depth = 1, depth_needed(matrix.shape[0], settings.chip.lines)
        self.bank = program_blocks(blocks, depth=self.depth, slices=settings.coarse_slices if level else fine,
                                   **settings.programming)
        self.event = 0

    def correct(self, residual: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return one shot's answer and what it took."""
        work = residual[None, :].copy()
        self.event += 1
        ledger = self.bank.shoot(work, self.event - 1)
        return work[0], ledger


class Smoother:
    """Restricted additive Schwarz over the patches of one level."""

    def __init__(
        self, matrix: sp.csr_matrix, settings: Settings, level: int, first_tile: int, near: NDArray[np.float64],
        block: int, slow: bool | None,
    ) -> None:
        self._settings, self._near, n = settings, near, matrix.shape[0]
        self._local = LocalMatrix(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data, 0, n)
        convective, positive, rough = judge_couplings(measure_couplings(self._local))
        alone = settings.levels == 1
        cut = functools.partial(
            make_patches, self._local, settings.largest_block, core=settings.core, overlap=settings.overlap,
            threshold=STRENGTH if settings.strength is None else settings.strength, block=block, signed=convective)
        patches = cut(small=not alone and (convective or bool(slow)))
        if (slow is None and not alone and (positive or rough) and settings.core is None
                and settings.largest_block > SMALL_TILE and block == 1):
            slow = want_small_cores(slow_cores(self._local, patches), positive)
            patches = cut(small=convective or slow)
        self.patches, self.slow = patches, bool(slow)
        small = settings.core is None and not alone and (convective or self.slow)
        self.tiles = patches.count
        self.border = mostly_border(int(patches.core.sum()), int(patches.size.sum()), near.shape[1], small)
        self._blocks = cut_blocks(self._local, patches, first_tile)
        fine = settings.slices or choose_slices(*sampled_cost(self._blocks, settings.chip, settings.shift))
        self.bank = program_blocks(
            self._blocks, depth=settings.blockamc, slices=settings.coarse_slices if level else fine,
            kept=patches.core, **settings.programming)
        self._work = np.zeros((patches.count, patches.index.shape[1]))
        self.event = 0

    def correct(self, residual: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return one shot's answer, each unknown from the patch whose core it is in, and what it took."""
        patches = self.patches
        gather(patches.index, patches.size, residual, self._work)
        self.event += 1
        ledger = self.bank.shoot(self._work, self.event - 1)
        out = np.empty(len(residual))
        scatter_cores(patches.index, patches.core, 0, self._work, out)
        return out, ledger

    def prolongation(self, matrix: sp.csr_matrix) -> tuple[sp.csr_matrix, NDArray[np.float64], int]:
        """Return the coarse space, the near-null vectors in it, and the unknowns of a coarse node.

        As `analogpde.petsc.hierarchy.Smoother.prolongation`, on one rank.
        """
        local, patches, near = self._local, self.patches, self._near
        width, settings = near.shape[1], self._settings
        coupled = np.flatnonzero(patches.coupled)
        number = np.full(patches.count, -1, np.int64)
        number[coupled] = np.arange(len(coupled))
        node, total = number[patches.label], len(coupled) * width
        values, factors = tentative(patches, 0, near)
        coarse_near = factors[coupled].reshape(-1, width)
        shape = (len(node), total)
        rows: Rows = tentative_rows(values, node)
        if width == 1 and self.bank.shift >= LEAST_SHIFT:
            bonds = find_bonds(patches, number, (local.indptr, local.indices, local.values), 0, rows, rows, total)
            rows = rows[0], islands(bonds)[rows[1]].astype(np.int32), rows[2]
        threshold = settings.truncation
        if threshold is None:
            threshold = choose_truncation(settings.largest_block, width, self.border)
        orders = find_orders(self._blocks)
        for _ in range(smoothing_sweeps(width, self.border)):
            rows = smooth(local, patches, self._blocks, orders, (local.indptr, local.indices, local.values), rows, rows,
                          weight=SMOOTHING_WEIGHT, threshold=threshold, near=coarse_near,
                          shift=min(self.bank.shift, LARGEST_SHIFT_OF_P))
        p = sp.csr_matrix(rows[::-1], shape=shape)
        # a sliver of a core is spanned by its neighbours' columns: its own is smoothed and truncated away
        kept = np.flatnonzero(np.bincount(p.indices, minlength=total))
        whole = len(kept) % width == 0 and (kept.reshape(-1, width) % width == np.arange(width)).all()
        return sp.csr_matrix(p[:, kept]), coarse_near[kept], width if whole else 1


class DigitalCoarse:
    """The last level by LU on the host, where no tiles hold it."""

    bank = None
    tiles = 0

    def __init__(self, matrix: sp.csr_matrix) -> None:
        try:
            self._solve = splu(matrix.tocsc()).solve
        except RuntimeError as error:
            raise ProgrammingFailed(f"the coarsest level, {matrix.shape[0]} unknowns, cannot be solved: {error}. Try "
                                    "-pc_analog_levels 1, or a larger -pc_analog_core.") from None

    def correct(self, residual: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return the answer; what a digital solver does is not counted."""
        return self._solve(residual), Ledger()


@dataclass(frozen=True)
class Equilibration:
    """S = R M C, as in `analogpde.petsc.equilibration`; singleton: 1/diagonal of rows that the host solves."""

    whole: sp.csr_matrix
    matrix: sp.csr_matrix
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    singleton: NDArray[np.float64]
    near: NDArray[np.float64]
    words: str

    def correct(self, solve: Callable[[NDArray[np.float64]], NDArray[np.float64]], residual: NDArray[np.float64],
                ) -> NDArray[np.float64]:
        """Return the answer of M from that of S, `solve`."""
        alone = self.singleton * residual
        given = residual - self.whole @ alone if self.singleton.any() else residual
        return np.asarray(self.columns * solve(self.rows * given) + alone)


def equilibrated(matrix: sp.csr_matrix, near: NDArray[np.float64], *, attached: bool) -> Equilibration | None:
    """Return a matrix equilibrated, or None where that changes little; as in `analogpde.petsc.equilibration`."""
    diagonal, whole = np.abs(matrix.diagonal()), (matrix.indptr, matrix.indices, matrix.data)
    low, high, singleton = uneven(whole, diagonal, 0)
    if not singleton and high <= SPREAD * low:
        return None
    transposed = sp.csr_matrix(matrix.T)
    transposed.sort_indices()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    moved = matrix.data * diagonal[matrix.indices] / diagonal[row]
    found = scan(whole, (transposed.indptr, transposed.indices, transposed.data), moved, 0)
    t = slope(found.sums, found.ends)
    if t is None and not found.odd:
        return None
    rows, columns = found.diagonals(t)
    scaled = matrix.copy()
    scaled.data *= rows[row] * columns[matrix.indices]
    theirs = near / columns[:, None]
    if not attached and votes(left(scaled @ theirs, theirs), left(scaled @ near, near)) > 0:
        theirs = near
    alone = np.where(found.odd & (found.singleton != 1.0), 1.0 / matrix.diagonal(), 0.0)
    return Equilibration(matrix, scaled, rows, columns, alone, theirs / np.abs(theirs).max(axis=0), words(t, found.odd))


class Cycle:
    """A matrix on tiles: one tile, BlockAMC, Schwarz or a multigrid of it, as the sizes and the settings ask.

    Args:
        matrix: real, CSR, sorted.
        settings: how.
        near: near-null vectors, shape (rows, k).
        block: unknowns of a node, which is never cut.
        symmetric: whether the matrix is. attached: whether the user gave the near-null vectors.
    """

    def __init__(self, matrix: sp.csr_matrix, settings: Settings, near: NDArray[np.float64], block: int, *,
                 symmetric: bool, attached: bool) -> None:
        self._settings = settings
        self._equilibration = None if symmetric else equilibrated(matrix, near, attached=attached)
        if self._equilibration is not None:
            matrix, near = self._equilibration.matrix, self._equilibration.near
        self._matrices = [matrix]
        self._prolongations: list[sp.csr_matrix] = []
        self._levels: list[Whole | Smoother | DigitalCoarse] = []
        self.digital_parts = ""
        self._build(near, block)
        entries = sum(2 * m.nnz for m in self._matrices[: len(self._prolongations)])
        entries += sum(2 * p.nnz for p in self._prolongations)
        if self._equilibration is not None and self._equilibration.singleton.any():
            entries += self._equilibration.whole.nnz  # a product takes these rows off
        self._host = Ledger(host_flops=2 * entries, host_bytes=12 * entries)
        self.programmed = Ledger()
        for level in self._levels:
            if level.bank is not None:
                self.programmed.add(level.bank.programmed)

    def _build(self, near: NDArray[np.float64], block: int) -> None:
        settings, first_tile, slow = self._settings, 0, None
        while True:
            current, level = self._matrices[-1], len(self._levels)
            size = current.shape[0]
            if size <= settings.largest_block and not (settings.levels == 1 and settings.core):
                self._levels.append(Whole(current, settings, level, first_tile))
                return
            if level and level + 1 >= settings.levels:
                break
            smoother = Smoother(current, settings, level, first_tile, near, block, slow)
            slow = smoother.slow
            self._levels.append(smoother)
            first_tile += smoother.tiles
            if settings.levels == 1:
                return
            p, near, block = smoother.prolongation(current)
            if p.shape[1] == 0 or p.shape[1] > STALLED * size:
                if level and p.shape[1]:  # this level itself becomes the last
                    self._levels.pop()
                    break
                return
            coarse = sp.csr_matrix(p.T @ (current @ p))
            coarse.sort_indices()
            self._prolongations.append(p)
            self._matrices.append(coarse)
            entries = [m.nnz for m in self._matrices]
            if sum(entries) > LARGEST_COMPLEXITY * entries[0] and coarse.shape[0] > settings.largest_block:
                break
        self._levels.append(self._last(self._matrices[-1], first_tile))

    def _last(self, matrix: sp.csr_matrix, first_tile: int) -> Whole | DigitalCoarse:
        settings, size = self._settings, matrix.shape[0]
        reach = settings.chip.lines << DEEPEST
        if settings.coarse != "digital":
            try:
                if size > reach:
                    raise ProgrammingFailed(
                        f"the coarsest level, {size} unknowns, exceeds the {reach} that BlockAMC solves on tiles of "
                        f"{settings.chip.tile_size}. Allow more -pc_analog_levels, use larger tiles, or "
                        "-pc_analog_coarse digital.")
                return Whole(matrix, settings, len(self._levels), first_tile)
            except ProgrammingFailed:
                if settings.coarse == "blockamc":
                    raise
        self.digital_parts = f"the coarsest level, {size} unknowns, is solved by digital LU"
        return DigitalCoarse(matrix)

    @property
    def softness(self) -> float:
        """How soft the coarsest operator is (`analogpde.refine.modes.softness`); 0 if that is not known."""
        last = self._levels[-1]
        return last.softness if isinstance(last, Whole) else 0.0

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """What equations of different size are to be multiplied by; None if they are alike."""
        return None if self._equilibration is None else self._equilibration.rows

    def correct(self, residual: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ledger]:
        """Return d ≈ A⁻¹ residual: one V(1,1) cycle, and what it took."""
        ledger = Ledger() + self._host
        if self._equilibration is None:
            return self._descend(residual, 0, ledger), ledger
        return self._equilibration.correct(lambda given: self._descend(given, 0, ledger), residual), ledger

    def _descend(self, residual: NDArray[np.float64], depth: int, ledger: Ledger) -> NDArray[np.float64]:
        level = self._levels[depth]
        x, used = level.correct(residual)
        ledger.add(used)
        if depth == len(self._levels) - 1:
            return x
        matrix, p = self._matrices[depth], self._prolongations[depth]
        x += p @ self._descend(p.T @ (residual - matrix @ x), depth + 1, ledger)
        after, used = level.correct(residual - matrix @ x)
        ledger.add(used)
        return x + after

    def describe(self) -> str:
        """Return the levels in a few lines, as -ksp_view does."""
        entries = [m.nnz for m in self._matrices]
        tile, lines = self._settings.chip.tile_size, []
        for depth, level in enumerate(self._levels):
            size = self._matrices[depth].shape[0]
            row = f"{entries[depth] / size:.1f} entries a row"
            last = " (coarsest)" if depth and depth == len(self._levels) - 1 else ""
            if isinstance(level, Smoother):
                blockamc = self._settings.blockamc
                noun = f"patches by BlockAMC on up to {4**blockamc} arrays" if blockamc else "tiles"
                patch = level.bank.lines / level.tiles
                what = (f"{level.tiles} {noun}, mean core {size / level.tiles:.0f}, mean patch {patch:.0f} (fill "
                        f"{patch / self._settings.largest_block:.0%}), shift {level.bank.shift:.3g}")
            elif isinstance(level, Whole):
                what = f"BlockAMC on {4**level.depth} arrays of {tile}" if level.depth else "one tile"
            else:
                what = "digital LU"
            lines.append(f"level {depth}{last}: {size} unknowns, {row}, {what}")
        if len(self._levels) > 1:
            lines.append(f"operator complexity {sum(entries) / entries[0]:.2f} (entries of all levels over the finest)")
        banks = [level.bank for level in self._levels if level.bank is not None]
        smallest, delta = min(bank.smallest for bank in banks), max(bank.delta for bank in banks)
        lines.append(f"probed: smallest singular value {smallest:.2g} of a unit diagonal (errors grow up to "
                     f"{1 / smallest:.2g} times), read noise δ = {delta:.2g} (limit 1)")
        if self._equilibration is not None:
            lines.append(self._equilibration.words)
        if self.digital_parts:
            lines.append(f"PARTLY DIGITAL: {self.digital_parts}")
        return "\n".join(lines)
