"""One level of the tile multigrid: patches on tiles, the prolongation they span, the coarsest tile."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import TileUse
from analogpde.errors import InvalidInput
from analogpde.patches.blocks import (
    add_patches,
    cut_blocks,
    gather,
    gather_cores,
    local_solves,
    scatter_cores,
)
from analogpde.patches.grow import LocalMatrix, Patches, make_patches, unsymmetry
from analogpde.patches.prolong import smooth_block_rows, smooth_rows, tentative
from analogpde.petsc import lattice, log
from analogpde.petsc.guard import soft, together
from analogpde.petsc.stack import MPI, PETSc
from analogpde.tile.blockamc import Bank, depth_needed, program_blocks
from analogpde.tile.blocks import Blocks
from analogpde.tile.programming import rounding_cost
from analogpde.tile.sharing import Budget, LimitedBank, program_limited

SHOTS_OF_A_PROGRAMMING = 1 << 20  # room in the numbering of shots, so that no two programmings share read noise
SMOOTHING_SWEEPS = 2
SMOOTHING_WEIGHT = 0.9  # measured on the prototype: 0.8…1 give the same counts

# Where the two directions of couplings differ by this fraction of them, convection rules: cores follow the flow more
# closely. By measurement, docs/method.md.
ONE_WAY = 0.1
STRENGTH, STRENGTH_ONE_WAY = 0.25, 0.4
# What rounding to one slice may add to the diagonal, on average, before a second slice is worth its cells.
COARSE_ROUNDING = 0.05
SAMPLE = 64  # tiles of a rank that it is measured on


@dataclass(frozen=True)
class Settings:
    """What PC analog was asked for.

    Args:
        chip, seed: the machine.
        prefix: options prefix.
        noise: name that keys the noise, so that two matrices never share draws.
        levels, core, overlap, strength, truncation, shift, slices, coarse_slices, blockamc, coarse, share_tolerance: the
            options of that name.
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
    blockamc: int = 0
    coarse: str = "auto"
    share_tolerance: float = 1e-6
    tiles: int | None = None

    def __post_init__(self) -> None:
        if self.tiles is not None and (self.blockamc or self.coarse == "blockamc"):
            raise InvalidInput("-analog_tiles_per_rank", self.tiles, "no limit with BlockAMC",
                               "A limited chip has no arrays to spare for it: leave -analog_blockamc and "
                               "-pc_analog_coarse blockamc away, or the limit.")

    @property
    def largest_block(self) -> int:
        """Rows of the largest block that tiles solve."""
        return self.chip.tile_size << self.blockamc


class Seen:
    """The rows that this rank's patches may reach, and the scatter that fetches a vector's entries for them.

    Collective. Rows are fetched once, as one ghosted submatrix a rank.
    """

    def __init__(self, matrix: PETSc.Mat, overlap: int, block: int = 1) -> None:
        comm = matrix.getComm()
        begin, end = matrix.getOwnershipRange()
        if comm.size == 1:
            indptr, indices, values = matrix.getValuesCSR()
            self.rows = np.arange(end, dtype=PETSc.IntType)
            self._scatter = None
        else:
            reach = PETSc.IS().createStride(end - begin, begin, 1, comm=PETSc.COMM_SELF)
            if overlap:
                matrix.increaseOverlap(reach, overlap)
            nodes = np.unique(reach.getIndices() // block)
            self.rows = (nodes[:, None] * block + np.arange(block)).ravel().astype(PETSc.IntType)  # whole nodes
            reach.destroy()
            reach = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            part = matrix.createSubMatrices([reach], [reach])[0]
            indptr, indices, values = part.getValuesCSR()
            part.destroy()
            self._ghosted = PETSc.Vec().createSeq(len(self.rows), comm=PETSc.COMM_SELF)
            template = matrix.createVecRight()
            self._scatter = PETSc.Scatter().create(template, reach, self._ghosted, None)
            template.destroy()
            reach.destroy()
        first = int(np.searchsorted(self.rows, begin))
        self.matrix = LocalMatrix(indptr.astype(np.int64), indices.astype(np.int64), values, first, end - begin)

    def fetch(self, vector: PETSc.Vec) -> NDArray[np.float64]:
        """Return the entries of a vector that this rank sees. Collective."""
        if self._scatter is None:
            return np.asarray(vector.array_r)
        self._scatter.scatter(vector, self._ghosted, addv=PETSc.InsertMode.INSERT_VALUES,
                              mode=PETSc.ScatterMode.FORWARD)
        return np.asarray(self._ghosted.array_r)

    def add(self, values: NDArray[np.float64], out: PETSc.Vec) -> None:
        """Set a vector to the sum of what all ranks have for its entries, in local numbering. Collective."""
        if self._scatter is None:
            out.array[:] = values
            return
        self._ghosted.array[:] = values
        out.set(0.0)
        self._scatter.scatter(self._ghosted, out, addv=PETSc.InsertMode.ADD_VALUES, mode=PETSc.ScatterMode.REVERSE)

    def rows_of(self, matrix: PETSc.Mat) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return the seen rows of another matrix with the same row layout, CSR in global columns. Collective."""
        if self._scatter is None:
            indptr, indices, values = matrix.getValuesCSR()
        else:
            rows = PETSc.IS().createGeneral(self.rows, comm=PETSc.COMM_SELF)
            columns = PETSc.IS().createStride(matrix.getSize()[1], 0, 1, comm=PETSc.COMM_SELF)
            part = matrix.createSubMatrices([rows], [columns])[0]
            indptr, indices, values = part.getValuesCSR()
            for thing in (part, rows, columns):
                thing.destroy()
        return indptr.astype(np.int64), indices.astype(np.int64), values

    def free(self) -> None:
        """Free PETSc objects."""
        if self._scatter is not None:
            self._scatter.destroy()
            self._ghosted.destroy()
            self._scatter = None


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
    def cost() -> tuple[float, int]:
        chosen = np.unique(np.linspace(0, blocks.count - 1, SAMPLE).astype(np.int64)) if blocks.count else np.arange(0)
        return rounding_cost(blocks.select(chosen), settings.chip, shift=settings.shift)

    added, rows = comm.allreduce(np.array(together(comm, cost)))
    return 2 if added > COARSE_ROUNDING * rows else 1


class Smoother:
    """Restricted additive Schwarz over INV tiles: a petsc4py PC context for one level. Collective.

    Args:
        matrix: the level's operator (AIJ).
        settings: options.
        level: 0 is the finest.
        first_tile: first global tile id of this level.
        programming: how often this preconditioner was programmed before; each time has errors of its own.
        near: near-null vectors on the owned unknowns, shape (owned, k).
        budget: tiles of this rank's chip that are free; None: no end of them.
    """

    def __init__(
        self, matrix: PETSc.Mat, settings: Settings, level: int, first_tile: int, programming: int,
        near: NDArray[np.float64], budget: Budget | None = None,
    ) -> None:
        comm = matrix.getComm().tompi4py()
        self.settings, self.level, self.near = settings, level, near
        self.patches: Patches
        self.boxes: NDArray[np.int64] | None = None
        block = matrix.getBlockSize()
        with log.EVENTS["Partition"]:
            self.seen = Seen(matrix, settings.overlap, block)
            local = self.seen.matrix
            # a small level gets smaller cores, so that at least two levels of cores remain meaningful
            threshold = settings.strength
            if threshold is None:
                one_way, total = comm.allreduce(np.array(unsymmetry(local)))
                threshold = STRENGTH if one_way <= ONE_WAY * total else STRENGTH_ONE_WAY
            found = self._box_patches(matrix, block, threshold) if budget is not None else None
            if found is not None:
                self.patches, self.boxes = found
            else:
                self.patches = together(comm, lambda: make_patches(
                    local, settings.largest_block, core=settings.core, overlap=settings.overlap, threshold=threshold,
                    block=block))
        before, self.tiles = _first_of_rank(comm, self.patches.count)
        core, size = comm.allreduce(int(self.patches.core.sum())), comm.allreduce(int(self.patches.size.sum()))
        # so it is in 3-D: one near-null vector 1.2…2.3 against 0.8…1.1 in 2-D, several 3 against 1…1.3
        self.mostly_border = size - core >= (1.2 if near.shape[1] == 1 else 2.0) * max(1, core)
        self.first_tile = first_tile
        with log.EVENTS["Program"]:
            blocks = together(comm, lambda: cut_blocks(local, self.patches, first_tile + before))
            slices = settings.coarse_slices if level else settings.slices or _fine_slices(blocks, settings, comm)
            self.slices = slices
            self.bank: Bank | LimitedBank = together(comm, lambda: program(
                blocks, settings, slices, programming, budget, depth=settings.blockamc, kept=self.patches.core,
                last=settings.levels == 1))
        log.machine.add(self.bank.programmed)
        self.event = programming * SHOTS_OF_A_PROGRAMMING
        self._work = np.zeros((self.patches.count, self.patches.index.shape[1]))

    def _box_patches(
        self, matrix: PETSc.Mat, block: int, threshold: float,
    ) -> tuple[Patches, NDArray[np.int64]] | None:
        """Return patches around boxes, if the matrix has coordinates that allow it. Collective."""
        own = lattice.attached(matrix)
        if own is None:
            return None
        vector = matrix.createVecRight()
        points = np.empty((self.seen.matrix.rows, own.shape[1]))
        for d in range(own.shape[1]):
            vector.array[:] = own[:, d]
            points[:, d] = self.seen.fetch(vector)
        vector.destroy()
        return lattice.make_box_patches(
            matrix.getComm().tompi4py(), self.seen.matrix, points, self.settings.chip.tile_size,
            core=self.settings.core, overlap=self.settings.overlap, threshold=threshold, block=block)

    def correct(self, residual: PETSc.Vec, out: PETSc.Vec) -> None:
        """One shot of every tile; each unknown takes the answer of the patch whose core it is in. Collective."""
        with log.EVENTS["Apply"]:
            seen = self.seen.fetch(residual)
            gather(self.patches.index, self.patches.size, seen, self._work)
            self.event += 1  # first: a failure must not leave this rank's count behind the others'
            log.machine.add(self.bank.shoot(self._work, self.event - 1))
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

    def prolongation(self, matrix: PETSc.Mat) -> tuple[PETSc.Mat, NDArray[np.float64]]:
        """Return the coarse space and the near-null vectors in it. Collective.

        Each core has one coarse unknown for each near-null vector: the vector cut to the core, smoothed by exact local
        solves, P ← P − ω M_RAS (A P), twice, and truncated: entries below the truncation of their row's largest are
        dropped and the rest changed so that P still gives the near-null vectors. The block size of the coarse space
        is the number of near-null vectors.
        """
        comm = matrix.getComm().tompi4py()
        local, patches, width = self.seen.matrix, self.patches, self.near.shape[1]
        coupled = np.flatnonzero(patches.coupled)
        number = np.full(patches.count, -1, np.int64)
        first, nodes = _first_of_rank(comm, len(coupled))
        number[coupled] = first + np.arange(len(coupled))
        node, total = number[patches.label], nodes * width
        values, factors = tentative(patches, local.first, self.near)
        coarse_near = np.concatenate(comm.allgather(factors[coupled].reshape(-1, width)))
        own = np.flatnonzero(node >= 0)
        shape = (len(node), total)
        column = node[own, None] * width + np.arange(width)
        p = sp.csr_matrix((values[own].ravel(), (np.repeat(own, width), column.ravel())), shape=shape)
        p.eliminate_zeros()
        sizes = (matrix.getSizes()[0], (len(coupled) * width, total))
        threshold = self.truncation()
        # with several near-null vectors in 3-D a second sweep only fills
        sweeps = 1 if width > 1 and self.mostly_border else SMOOTHING_SWEEPS
        blocks = cut_blocks(local, patches, 0)
        for _ in range(sweeps):
            current = _assemble(p, sizes, matrix.getComm())
            product = matrix.matMult(current)
            indptr, indices, entries = self.seen.rows_of(product)
            if comm.size == 1:
                names, compressed = np.arange(total), indices
            else:
                names, compressed = np.unique(indices, return_inverse=True)
            solve = functools.partial(local_solves, local, patches, blocks, indptr, compressed, entries)
            s_indptr, s_indices, s_values = together(comm, solve)
            terms = (p.indptr, p.indices, p.data, s_indptr, names[s_indices] if len(s_indices) else s_indices, s_values,
                     SMOOTHING_WEIGHT, threshold)
            rows = smooth_rows(*terms) if width == 1 else smooth_block_rows(*terms, coarse_near, width)
            p = sp.csr_matrix(rows, shape=shape)
            current.destroy()
            product.destroy()
        # a sliver of a core is spanned by its neighbours' columns: its own is smoothed and truncated away
        used = np.zeros(total, np.int64)
        comm.Allreduce(np.bincount(p.indices, minlength=total).astype(np.int64), used)
        kept = np.flatnonzero(used)
        begin = first * width
        end = begin + len(coupled) * width
        mine = int(np.count_nonzero(used[begin:end]))
        out = _assemble(p[:, kept], (sizes[0], (mine, len(kept))), matrix.getComm())
        if self.boxes is not None:
            self.boxes = np.repeat(self.boxes[coupled], width, axis=0)[used[begin:end] > 0]
        # nodes of too few unknowns for all near-null vectors have fewer columns: then there is no block size
        if width > 1 and len(kept) % width == 0 and (kept.reshape(-1, width) % width == np.arange(width)).all():
            out.setBlockSizes(1, width)
        return out, coarse_near[begin:end][used[begin:end] > 0]

    def locate(self, coarse: PETSc.Mat) -> None:
        """Give the coarse unknowns, once there are any, the places of their boxes for coordinates. Collective."""
        if self.boxes is not None:
            lattice.attach(coarse, self.boxes.astype(np.float64))

    def truncation(self) -> float:
        """Return the truncation of P, by measurement (docs/method.md).

        One near-null vector: 5 % where patches are mostly core (2-D), 15 % where they are mostly border (3-D, small
        tiles). Several, whose coarse nodes are few unknowns apart and fill fast: 10 and 25 %.
        """
        if self.settings.truncation is not None:
            return self.settings.truncation
        if self.near.shape[1] > 1:
            return 0.25 if self.mostly_border else 0.1
        return 0.15 if self.settings.largest_block <= 32 or self.mostly_border else 0.05

    def free(self) -> None:
        """Free PETSc objects and tile memory."""
        self.seen.free()
        for name in ("bank", "patches", "_work"):
            self.__dict__.pop(name, None)


def _assemble(p: sp.csr_matrix, sizes: Any, comm: Any) -> PETSc.Mat:
    csr = (p.indptr.astype(PETSc.IntType), p.indices.astype(PETSc.IntType), p.data)
    matrix = PETSc.Mat().createAIJ(size=sizes, csr=csr, comm=comm)
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
        self.depth = depth_needed(self.size, settings.chip.tile_size)
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
