"""One level of the tile multigrid: patches on tiles, the prolongation they span, the coarsest tile."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import Ledger, TileUse
from analogpde.errors import InvalidInput
from analogpde.options import check_core
from analogpde.patches.blocks import (
    add_patches,
    cut_blocks,
    gather,
    gather_cores,
    scatter_cores,
)
from analogpde.patches.prolong import find_bonds, islands, tentative, tentative_rows
from analogpde.patches.rules import (
    LARGEST_SHIFT_OF_P,
    LEAST_SHIFT,
    SMOOTHING_WEIGHT,
    choose_slices,
    choose_truncation,
    mostly_border,
    sampled_cost,
    smoothing_sweeps,
)
from analogpde.patches.smooth import Rows, find_orders, smooth
from analogpde.petsc import lattice, log
from analogpde.petsc.exchange import ghost_bytes
from analogpde.petsc.guard import soft, together
from analogpde.petsc.partition import Partition, agglomerated
from analogpde.petsc.stack import MPI, PETSc
from analogpde.refine.modes import softness
from analogpde.tile.blockamc import Bank, depth_needed, program_blocks
from analogpde.tile.blocks import Blocks
from analogpde.tile.sharing import Budget, LimitedBank, program_limited

SHOTS_OF_A_PROGRAMMING = 1 << 20  # room in the numbering of shots, so that no two programmings share read noise


@dataclass(frozen=True)
class Settings:
    """What PC analog was asked for.

    Args:
        chip, seed: the machine.
        prefix: options prefix.
        noise: name that keys the noise, so that two matrices never share draws.
        levels, core, overlap, strength, truncation, shift, slices, coarse_slices, blockamc, coarse, rank_unknowns,
            share_tolerance: the options of that name.
        tiles: that one rank's chip has; None is as many as wanted.
    """

    chip: Chip
    seed: int = 0
    prefix: str = ""
    noise: str = ""
    levels: int = 10
    core: int | None = None
    overlap: int = 2
    strength: float | None = None
    truncation: float | None = None
    shift: float = 0.5
    slices: int | None = None
    coarse_slices: int = 2
    rank_unknowns: int = 500
    blockamc: int = 0
    coarse: str = "auto"
    share_tolerance: float = 1e-6
    tiles: int | None = None

    def __post_init__(self) -> None:
        check_core(self.core, self.largest_block)
        if self.tiles is not None and (self.blockamc or self.coarse == "blockamc"):
            raise InvalidInput("-analog_tiles_per_rank", self.tiles, "no limit with BlockAMC",
                               "A limited chip has no arrays to spare for it: leave -analog_blockamc and "
                               "-pc_analog_coarse blockamc away, or the limit.")

    @property
    def largest_block(self) -> int:
        """Rows of the largest block that tiles solve."""
        return self.chip.lines << self.blockamc


def program(
    blocks: Blocks, settings: Settings, slices: int, programming: int, budget: Budget | None, *, depth: int = 0,
    kept: NDArray[np.int32] | None = None, last: bool = False,
) -> Bank | LimitedBank:
    """Program blocks on this rank's chip: a tile for each (by BlockAMC, several), or what the budget allows."""
    if budget is None:
        return program_blocks(blocks, settings.chip, depth=depth, slices=slices, shift=settings.shift,
                              seed=settings.seed, name=settings.noise, event=programming, kept=kept)
    return program_limited(blocks, settings.chip, budget, tolerance=settings.share_tolerance, last=last, slices=slices,
                           shift=settings.shift, seed=settings.seed, name=settings.noise, event=programming, kept=kept)


def _first_of_rank(comm: MPI.Comm, count: int) -> tuple[int, int]:
    """Return where this rank's share of a global numbering begins, and the total. Collective."""
    counts = comm.allgather(count)
    return sum(counts[: comm.rank]), sum(counts)


def _fine_slices(blocks: Blocks, settings: Settings, comm: MPI.Comm) -> int:
    """Return 2 where one slice would round too coarsely, else 1. Collective."""
    cost = together(comm, lambda: sampled_cost(blocks, settings.chip, settings.shift))
    added, rows = comm.allreduce(np.array(cost))
    return choose_slices(added, rows)


class Smoother:
    """Restricted additive Schwarz over INV tiles: a petsc4py PC context for one level. Collective.

    Args:
        matrix: the level's operator (AIJ).
        settings: options.
        level: 0 is the finest.
        first_tile: first global tile id of this level.
        programming: how often this preconditioner was programmed before; each time has errors of its own.
        near: near-null vectors on the owned unknowns, shape (owned, k).
        partition: of this level, with the matrix's values; it belongs to the caller.
        budget: tiles of this rank's chip that are free; None: no end of them.
    """

    def __init__(
        self, matrix: PETSc.Mat, settings: Settings, level: int, first_tile: int, programming: int,
        near: NDArray[np.float64], partition: Partition, budget: Budget | None = None,
    ) -> None:
        comm = matrix.getComm().tompi4py()
        self.settings, self.level, self.near = settings, level, near
        self.seen, self.patches, local = partition.seen, partition.patches, partition.seen.matrix
        self.boxes = partition.boxes
        self._places: NDArray[np.int64] | None = None
        self.sent = 0  # bytes from other ranks that a product with P takes
        before, self.tiles = _first_of_rank(comm, self.patches.count)
        core, size = comm.allreduce(int(self.patches.core.sum())), comm.allreduce(int(self.patches.size.sum()))
        self.mostly_border = mostly_border(core, size, near.shape[1], partition.small)
        self.first_tile = first_tile
        with log.EVENTS["Program"]:
            blocks = together(comm, lambda: cut_blocks(local, self.patches, first_tile + before))
            slices = settings.coarse_slices if level else settings.slices or _fine_slices(blocks, settings, comm)
            self.slices = slices
            self.bank: Bank | LimitedBank = together(comm, lambda: program(
                blocks, settings, slices, programming, budget, depth=settings.blockamc, kept=self.patches.core,
                last=settings.levels == 1))
            self._blocks: Blocks | None = blocks if settings.levels > 1 else None  # until P is made
        self.shift = comm.allreduce(self.bank.shift * self.patches.count) / max(1, self.tiles)
        log.machine.add(self.bank.programmed)
        self.event = programming * SHOTS_OF_A_PROGRAMMING
        self._work = np.zeros((self.patches.count, self.patches.index.shape[1]))

    def correct(self, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """One shot of every tile; each unknown takes the answer of the patch whose core it is in. Collective."""
        with log.EVENTS["Apply"]:
            seen = self.seen.fetch(residual)
            gather(self.patches.index, self.patches.size, seen, self._work)
            self.event += 1  # first: a failure must not leave this rank's count behind the others'
            log.machine.add(self.bank.shoot(self._work, self.event - 1))
            log.machine.add(Ledger(rank_bytes=self.seen.sent))
            scatter_cores(self.patches.index, self.patches.core, self.seen.matrix.first, self._work, out.array)

    def correct_transposed(self, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """The transpose: each tile is driven by its core and all its answers are added up. Collective."""
        with log.EVENTS["Apply"]:
            gather_cores(self.patches.index, self.patches.core, self.seen.matrix.first, residual.array_r, self._work)
            self.event += 1
            failure = None
            sums = np.zeros(self.seen.matrix.rows)
            try:
                log.machine.add(self.bank.shoot(self._work, self.event - 1, transposed=True))
                log.machine.add(Ledger(rank_bytes=self.seen.sent))
                add_patches(self.patches.index, self.patches.size, self._work, sums)
            except Exception as error:  # the other ranks wait for the scatter
                failure = error
                sums[:] = np.nan
            self.seen.add(sums, out)
            if failure is not None:
                raise failure

    @soft
    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """petsc4py hook: y ≈ A⁻¹ x."""
        self.correct(x, y)

    @soft
    def applyTranspose(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """petsc4py hook: y ≈ A⁻ᵀ x."""
        self.correct_transposed(x, y)

    def prolongation(self, matrix: PETSc.Mat) -> tuple[PETSc.Mat, NDArray[np.float64], NDArray[np.int64]]:
        """Return the coarse space, the near-null vectors in it, and what names its columns. Collective.

        Each core has one coarse unknown for each near-null vector: the vector cut to the core, smoothed by local solves
        that are exact but for the tiles' shift, P ← P − ω M_RAS (A P), twice, and truncated: entries below the
        truncation of their row's largest are dropped and the rest changed so that P still gives the near-null vectors.
        The few cores of a stiff island share a coarse unknown (`islands`).
        The block size of the coarse space is the number of near-null vectors. Too few coarse unknowns for all ranks are
        owned by some of them.
        """
        comm = matrix.getComm().tompi4py()
        local, patches, width = self.seen.matrix, self.patches, self.near.shape[1]
        coupled = np.flatnonzero(patches.coupled)
        number = np.full(patches.count, -1, np.int64)
        bounds = np.cumsum([0, *comm.allgather(len(coupled))])
        first, nodes = int(bounds[comm.rank]), int(bounds[-1])
        number[coupled] = first + np.arange(len(coupled))
        node, total = number[patches.label], nodes * width
        values, factors = tentative(patches, local.first, self.near)
        coarse_near = np.concatenate(comm.allgather(factors[coupled].reshape(-1, width)))
        p: Rows = tentative_rows(values, node)
        sizes = (matrix.getSizes()[0], (len(coupled) * width, total))
        threshold = self.truncation()
        blocks = self._blocks or cut_blocks(local, patches, 0)
        self._blocks, orders = None, find_orders(blocks)
        if width == 1 and self.shift >= LEAST_SHIFT:
            needed = self.seen.needed(p, matrix.getOwnershipRange()[0])
            own = comm.allgather(together(comm, functools.partial(
                find_bonds, patches, number, self.seen.whole, local.first, p, needed, nodes)))
            energy, one, other, size = (np.concatenate(part) for part in zip(*own, strict=True))
            p = p[0], islands((energy, one, other, size))[p[1]].astype(np.int32), p[2]
        for _ in range(smoothing_sweeps(width, self.mostly_border)):
            needed = self.seen.needed(p, matrix.getOwnershipRange()[0])
            p = together(comm, functools.partial(
                smooth, local, patches, blocks, orders, self.seen.whole, needed, p, weight=SMOOTHING_WEIGHT,
                threshold=threshold, near=coarse_near, shift=min(self.shift, LARGEST_SHIFT_OF_P)))
        # a sliver of a core is spanned by its neighbours' columns: its own is smoothed and truncated away
        used = np.zeros(total, np.int64)
        comm.Allreduce(np.bincount(p[1], minlength=total).astype(np.int64), used)
        kept = np.flatnonzero(used)
        shares = agglomerated(np.diff(np.searchsorted(kept, bounds * width)), self.settings.rank_unknowns)
        begin, mine = int(shares[: comm.rank].sum()), int(shares[comm.rank])
        if len(kept) < total:
            p = p[0], (np.cumsum(used > 0) - 1)[p[1]], p[2]
        self.sent = ghost_bytes(p[1], begin, begin + mine) if comm.size > 1 else 0
        out = _assemble(p, (sizes[0], (mine, len(kept))), matrix.getComm())
        if self.boxes is not None:
            places = np.concatenate(comm.allgather(self.boxes[coupled]))
            self._places = np.repeat(places, width, axis=0)[kept[begin : begin + mine]]
        # nodes of too few unknowns for all near-null vectors have fewer columns: then there is no block size
        if width > 1 and len(kept) % width == 0 and (kept.reshape(-1, width) % width == np.arange(width)).all():
            out.setBlockSizes(1, width)
        return out, coarse_near[kept[begin : begin + mine]], np.append(kept, width)

    def locate(self, coarse: PETSc.Mat) -> None:
        """Give the coarse unknowns, once there are any, the places of their boxes for coordinates. Collective."""
        if self._places is not None:
            lattice.attach(coarse, self._places.astype(np.float64))

    def truncation(self) -> float:
        """Return the truncation of P: the user's, or what the patches' shape asks for."""
        if self.settings.truncation is not None:
            return self.settings.truncation
        return choose_truncation(self.settings.largest_block, self.near.shape[1], self.mostly_border)

    def free(self) -> None:
        """Free tile memory; the partition may serve again."""
        for name in ("bank", "patches", "seen", "_work", "_blocks"):
            self.__dict__.pop(name, None)


def _assemble(p: Rows, sizes: Any, comm: Any) -> PETSc.Mat:
    csr = (p[0].astype(PETSc.IntType), p[1].astype(PETSc.IntType, copy=False), p[2])
    matrix = PETSc.Mat().createAIJWithArrays(sizes, csr, comm=comm)  # on one rank without a copy
    matrix.assemble()
    return matrix


class CoarsestTile:
    """The coarsest level on one tile, or by BlockAMC on several, driven by rank 0: a petsc4py PC context. Collective.

    A singular operator is grounded: its last unknowns, `floating` of them, are held at zero and the null space
    projected out afterwards, as one grounds a node of a floating circuit.
    """

    def __init__(
        self, matrix: PETSc.Mat, settings: Settings, level: int, first_tile: int, programming: int, floating: int,
        budget: Budget | None = None,
    ) -> None:
        comm = matrix.getComm().tompi4py()
        self.size = matrix.getSize()[0]
        self.tiles = 1
        self.depth = depth_needed(self.size, settings.chip.lines)
        count = self.size if comm.rank == 0 else 0
        rows = PETSc.IS().createStride(count, 0, 1, comm=PETSc.COMM_SELF)
        part = matrix.createSubMatrices([rows], [rows])[0]
        vector = matrix.createVecRight()
        self._scatter, self._sequential = PETSc.Scatter.toZero(vector)
        vector.destroy()
        grounded = floating if self.size > floating else 0
        self._used = self.size - grounded if comm.rank == 0 else 0

        def programmed() -> Bank | LimitedBank:
            n = self._used
            if n:
                indptr, indices, values = part.getValuesCSR()
                dense = sp.csr_matrix((values, indices, indptr), shape=(self.size, self.size)).toarray()[None, :n, :n]
            else:
                dense = np.zeros((0, 0, 0))
            self.softness = softness(dense[0]) if n else math.inf
            blocks = Blocks.from_dense(dense, first_tile)
            fine = settings.slices or _fine_slices(blocks, settings, MPI.COMM_SELF)
            return program(blocks, settings, settings.coarse_slices if level else fine, programming, budget,
                           depth=self.depth, last=True)

        with log.EVENTS["Program"]:
            try:
                self.bank: Bank | LimitedBank = together(comm, programmed)
            except Exception:
                self.free()
                raise
            finally:
                part.destroy()
                rows.destroy()
        self.softness = float(comm.allreduce(self.softness, op=MPI.MIN))
        log.machine.add(self.bank.programmed)
        self.event = programming * SHOTS_OF_A_PROGRAMMING

    def correct(self, residual: PETSc.Vec, out: PETSc.Vec, *, transposed: bool = False) -> None:
        """One shot of the coarsest tile. Collective."""
        forward, reverse = PETSc.ScatterMode.FORWARD, PETSc.ScatterMode.REVERSE
        insert = PETSc.InsertMode.INSERT_VALUES
        with log.EVENTS["Coarse"]:
            self._scatter.scatter(residual, self._sequential, addv=insert, mode=forward)
            self.event += 1
            failure = None
            if self._used:
                try:
                    self._shoot(transposed)
                except Exception as error:  # the other ranks wait for the scatter
                    failure = error
                    self._sequential.array[:] = np.nan
            self._scatter.scatter(self._sequential, out, addv=insert, mode=reverse)
            if failure is not None:
                raise failure

    def correct_transposed(self, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """The same with the transposed matrix. Collective."""
        self.correct(residual, out, transposed=True)

    def _shoot(self, transposed: bool) -> None:
        n = self._used
        work = self._sequential.array_r[:n][None, :].copy()
        log.machine.add(self.bank.shoot(work, self.event - 1, transposed=transposed))
        values = self._sequential.array
        values[:n], values[n:] = work[0], 0.0

    @soft
    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """petsc4py hook: y ≈ A⁻¹ x."""
        self.correct(x, y)

    @soft
    def applyTranspose(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """petsc4py hook: y ≈ A⁻ᵀ x."""
        self.correct_transposed(x, y)

    def free(self) -> None:
        """Free PETSc objects and tile memory."""
        self._scatter.destroy()
        self._sequential.destroy()
        self.__dict__.pop("bank", None)


def tile_use(comm: MPI.Comm, levels: list[Smoother | CoarsestTile | None], limit: int | None) -> TileUse | None:
    """Return how a chip of few tiles is used on all levels and ranks; None if there is no limit. Collective."""
    if limit is None:
        return None
    total = TileUse(limit)
    for level in levels:
        if level is not None and isinstance(level.bank, LimitedBank):
            total += level.bank.use
    return sum(comm.allgather(total), TileUse(limit))
