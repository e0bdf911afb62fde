"""PC analog: the matrix on tiles, as one PETSc preconditioner."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import load
from analogpde.cost import Ledger, TileUse
from analogpde.errors import InvalidInput, ProgrammingFailed
from analogpde.options import CHIP_OPTIONS, PC_OPTIONS, TABLE
from analogpde.patches.rules import LARGEST_COMPLEXITY, STALLED
from analogpde.patches.smooth import Rows
from analogpde.petsc import lattice, log
from analogpde.petsc.describe import describe_levels
from analogpde.petsc.equilibration import Equilibration, equilibrated
from analogpde.petsc.guard import carried, report, say, soft, together
from analogpde.petsc.hierarchy import CoarsestTile, Settings, Smoother, tile_use
from analogpde.petsc.ksp import AnalogKSP
from analogpde.petsc.matrix import (
    as_aij,
    galerkin,
    has_near_null,
    near_null_vectors,
    nullity,
    refuse_zero_diagonal,
    version,
)
from analogpde.petsc.options import guard_names, help_text, read, read_chip, read_multigrid, read_tiles, wants_help
from analogpde.petsc.partition import Partition
from analogpde.petsc.recheck import LARGEST, excess, fixed_pc_around, needs_a_fixed_pc
from analogpde.petsc.stack import MPI, PETSc
from analogpde.tile.blockamc import DEEPEST
from analogpde.tile.sharing import Budget

_NO_FAILURE = PETSc.PC.FailedReason.NOERROR
_MESSAGES = 5  # of the same kind


def _factorise(solver: PETSc.KSP, matrix: PETSc.Mat) -> None:
    """Let the digital coarse solver do its factorisation, which PETSc puts off until it is first used. Collective.

    Raises:
        ProgrammingFailed: there is no factorisation; inside an application this would be no error but a crash.
    """
    x, y = matrix.createVecs()
    x.set(1.0)
    why = "the factorisation met a zero pivot"
    try:
        solver.solve(x, y)
        failed = solver.getConvergedReason() < 0 or not np.isfinite(y.norm())
    except PETSc.Error as error:
        failed, why = True, str(error).splitlines()[-1]
    x.destroy()
    y.destroy()
    if failed:
        raise ProgrammingFailed(f"the coarsest level, {matrix.getSize()[0]} unknowns, cannot be solved: {why}. Coarse "
                                "unknowns depend on each other; try -pc_analog_levels 1, or a larger -pc_analog_core.")


def _leader(pc: PETSc.PC) -> str:
    """Return the world rank that leads this preconditioner, '' for 0: blocks on other ranks have the same prefix."""
    group = pc.getComm().tompi4py().Get_group()
    rank = group.Translate_ranks([0], MPI.COMM_WORLD.Get_group())[0]
    return f"@{rank}" if rank > 0 else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class AnalogPC:
    """The petsc4py context behind `-pc_type analog`. Every hook is collective."""

    warned_inside = False  # of all of a process: GAMG has many

    def __init__(self) -> None:
        self.settings = Settings(chip=load(TABLE["analog_chip"].default))
        self.reprogram = "on_change"
        self.digital_parts: list[str] = []
        self.tile_use: TileUse | None = None
        self.programmings = 0
        self.partitionings = 0
        self._multigrid: PETSc.PC | None = None
        self._levels: list[Any] = []
        self._owned: list[PETSc.Mat] = []
        self._equilibration: Equilibration | None = None
        self._partitions: list[Partition] = []
        self._fingerprint: tuple[bytes, bytes] | None = None
        self._holds: tuple[int, int] | None = None  # version of the matrix on the tiles
        self._lines: list[str] = []
        self._host = Ledger()
        self._warned, self._withdrawn = False, 0
        self._ways: set[bool] = set()  # whether this solve has applied it transposed, and not transposed

    # ---- petsc4py hooks -------------------------------------------------------------------------------

    def create(self, pc: PETSc.PC) -> None:
        """Hold what must not be freed on one rank alone."""
        log.anchor(pc.getComm())

    @carried
    def setFromOptions(self, pc: PETSc.PC) -> None:
        """Read the options of this prefix."""
        guard_names()
        prefix = pc.getOptionsPrefix() or ""
        values = read(PC_OPTIONS, prefix)
        chip, seed = read_chip(prefix)
        self.reprogram = values["pc_analog_reprogram"]
        wanted = {name: values[f"pc_analog_{name}"] for name in (
            "levels", "core", "overlap", "strength", "truncation", "shift", "slices", "coarse_slices", "coarse",
            "rank_unknowns", "share_tolerance")}
        wanted["blockamc"] = read((TABLE["analog_blockamc"],), prefix, inherit=True)["analog_blockamc"]
        tiles = read_tiles(prefix)
        settings = Settings(chip=chip, seed=seed, prefix=prefix, noise=prefix + _leader(pc), tiles=tiles, **wanted)
        if settings != self.settings:
            self.settings = settings
            if self._levels:
                self._free()
                pc.getOperators()[1].stateIncrease()  # or PETSc would not set the PC up again
        if wants_help() and pc.getComm().rank == 0:
            now = {**values, "analog_chip": chip.name, "analog_seed": seed, "analog_tiles_per_rank": tiles}
            print(help_text("PC analog", PC_OPTIONS, prefix, now), end="")
            print(help_text("The emulated chip", CHIP_OPTIONS, "", now), end="")

    @carried
    def setUp(self, pc: PETSc.PC) -> None:
        """Partition and program, unless the matrix on the tiles is still the matrix wanted."""
        try:
            self._set_up(pc)
        except Exception as error:
            if pc.getComm().size == MPI.COMM_WORLD.size:
                raise  # everywhere
            # One block of another preconditioner: ranks outside know nothing of it and would wait for ever. As in
            # `soft` the failure travels with the data.
            self._free()
            report(error)
            pc.setFailedReason(PETSc.PC.FailedReason.SUBPC_ERROR)

    def _set_up(self, pc: PETSc.PC) -> None:
        start, before = log.clock(), log.machine + Ledger()
        if self._levels and self.reprogram == "never":
            return
        _, matrix = pc.getOperators()
        matrix, converted = as_aij(
            matrix, "matrix type of the preconditioning operator",
            "Tiles hold matrix entries: pass an assembled matrix as the second operator, KSPSetOperators(A, P).")
        fingerprint, own = self._fingerprint_of(matrix)
        if self._levels and self.reprogram == "on_change" and fingerprint == self._fingerprint:
            if converted:
                matrix.destroy()
            self._holds = version(pc.getOperators()[1])
            return
        self._free(partitions=not self._fingerprint or fingerprint[0] != self._fingerprint[0])
        if converted:
            self._owned.append(matrix)
        try:
            refuse_zero_diagonal(matrix)
            self._build(pc, matrix, own)
        except BaseException:
            self._free()
            raise
        self._fingerprint, self._holds = fingerprint, version(pc.getOperators()[1])
        self.programmings += 1
        log.session().chip = self.settings.chip.as_dict()
        log.add_setup(pc.getOptionsPrefix() or "", log.clock() - start, log.machine - before)

    @soft
    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y ≈ A⁻¹ x: one cycle."""
        self._apply(pc, x, y, transposed=False)

    @soft
    def applyTranspose(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y ≈ A⁻ᵀ x: one cycle on the same tiles, rows and columns exchanged."""
        self._apply(pc, x, y, transposed=True)

    def _apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec, *, transposed: bool) -> None:
        if self._equilibration is None:
            self._cycle_once(pc, x, y, transposed=transposed)
        else:
            self._cycle_once(pc, self._equilibration.into(x, transposed=transposed), self._equilibration.answer,
                             transposed=transposed)
            self._equilibration.out_of(x, y, transposed=transposed)
            log.machine.add(self._equilibration.host)
        self._ways.add(transposed)
        log.machine.add(self._host)

    def _cycle_once(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec, *, transposed: bool) -> None:
        if self._multigrid is not None:
            (self._multigrid.applyTranspose if transposed else self._multigrid.apply)(x, y)
            if self._multigrid.getFailedReason() != _NO_FAILURE:
                self._multigrid.setFailedReason(_NO_FAILURE)
                pc.setFailedReason(PETSc.PC.FailedReason.SUBPC_ERROR)
        elif self._levels:
            level = self._levels[0]
            (level.correct_transposed if transposed else level.correct)(x, y)
        else:
            raise ProgrammingFailed("no matrix is on the tiles: the last set-up failed.")

    def preSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Warn of a KSP whose residual norm is not the true one when the preconditioner varies."""
        self._ways.clear()
        if self._warned or self.settings.chip.deterministic:
            return
        if not AnalogPC.warned_inside and not AnalogKSP.under_way and (option := fixed_pc_around(ksp)):
            AnalogPC.warned_inside = True
            say(MPI.COMM_WORLD, "analogpde: tiles are part of another preconditioner, which then varies. "
                "PETSc's GMRES (the default), CG and the like take it for fixed, and may say 'converged' when they are "
                f"not. Use {option} analog, fgmres or gcr, if you have not set it in the program.")
        elif needs_a_fixed_pc(ksp):
            self._warned = True
            say(pc.getComm().tompi4py(), f"analogpde: KSP {ksp.getType()} takes the preconditioner for fixed and "
                "linear, which tiles are not: its residual norms may be wrong. Where it says 'converged' the residual "
                "is formed anew. Use -ksp_type analog, fgmres or gcr, or fcg where the matrix is symmetric.")

    def postSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Check 'converged' where the KSP cannot know; forget a failed application, which the solve has reported."""
        if self._levels and not self.settings.chip.deterministic and needs_a_fixed_pc(ksp):
            times = excess(ksp, b, x, transposed=self._ways == {True})
            if times > LARGEST:
                ksp.setConvergedReason(PETSc.KSP.ConvergedReason.DIVERGED_BREAKDOWN)
                self._withdrawn += 1
                if self._withdrawn <= _MESSAGES:
                    say(pc.getComm().tompi4py(), f"analogpde: KSP {ksp.getType()} said 'converged', but its residual, "
                        f"formed anew, is {times:.1e} times the tolerance: DIVERGED_BREAKDOWN.")
        if pc.getFailedReason() != _NO_FAILURE and self._levels:
            pc.setFailedReason(_NO_FAILURE)  # PETSc would refuse every later solve for it

    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        """Print what -ksp_view shows."""
        if viewer.getType() == PETSc.Viewer.Type.ASCII:
            for line in self.describe().splitlines():
                viewer.printfASCII(f"    {line}\n")

    def reset(self, pc: PETSc.PC) -> None:
        """Free tiles and level matrices."""
        self._free()

    def destroy(self, pc: PETSc.PC) -> None:
        """Free everything."""
        self._free()

    # ---- what they do -----------------------------------------------------------------------------------

    def describe(self) -> str:
        """Return the preconditioner in a few lines: chip, levels, tiles."""
        head = [f"chip {self.settings.chip.summary()}, seed {self.settings.seed}"]
        return "\n".join(head + (self._lines or ["not set up yet"]))

    __repr__ = describe

    @property
    def softness(self) -> float:
        """How soft the coarsest operator is (`analogpde.refine.modes.softness`); 0 if that is not known."""
        last = self._levels[-1] if self._levels else None
        return last.softness if isinstance(last, CoarsestTile) else 0.0

    def holds(self, matrix: PETSc.Mat) -> bool:
        """Tell whether the tiles hold this matrix as it is now, not another or older values."""
        return self._holds == version(matrix)

    def weight(self, transposed: bool) -> NDArray[np.float64] | None:
        """Return what equations of different size are to be multiplied by, this rank's; None if they are alike."""
        return None if self._equilibration is None else self._equilibration.weight(transposed)

    @property
    def shots(self) -> list[int]:
        """Shots of each level so far, by which their read noise is drawn; the same on every rank.

        Setting them makes a restarted program draw the noise that an uninterrupted one would. Levels that are not on
        tiles have none.
        """
        return [level.event for level in self._levels if level is not None]

    @shots.setter
    def shots(self, counts: Sequence[int]) -> None:
        levels = [level for level in self._levels if level is not None]
        if len(counts) != len(levels):
            raise ValueError(f"{len(counts)} counts of shots for {len(levels)} levels")
        for level, count in zip(levels, counts, strict=True):
            level.event = int(count)

    def _fingerprint_of(self, matrix: PETSc.Mat) -> tuple[tuple[bytes, bytes], Rows]:
        """Return hashes of the pattern and values of all ranks' rows, and the rows of this one. Collective."""
        comm = matrix.getComm().tompi4py()
        rows = indptr, indices, values = matrix.getValuesCSR()

        def local() -> tuple[bytes, bytes]:
            if not np.isfinite(values).all():
                raise InvalidInput("matrix entries", "NaN or infinity", "finite numbers", "Check the assembly.")
            if values.size == 0 or not values.any():
                zero.append(True)
            pattern, numbers = hashlib.sha256(), hashlib.sha256()  # most processors have instructions for it
            for array in (indptr, indices):
                pattern.update(np.ascontiguousarray(array).data)
            numbers.update(np.ascontiguousarray(values).data)
            return pattern.digest(), numbers.digest()

        zero: list[bool] = []
        own = together(comm, local)
        parts = comm.allgather((*own, bool(zero)))
        if all(empty for *_, empty in parts):
            raise InvalidInput("matrix", "all entries zero", "a nonsingular matrix",
                               "Was the matrix assembled before the solver was set up?")
        kind = bytes([matrix.getBlockSize() % 256, nullity(matrix) > 0])
        return (kind + b"".join(part[0] for part in parts), b"".join(part[1] for part in parts)), rows

    def _partition(self, matrix: PETSc.Mat, level: int, own: Rows | None) -> Partition:
        """Return the level's partition: the one it has, if that fits the new values, or a new one. Collective."""
        settings = self.settings
        if level < len(self._partitions) and not self._partitions[level].keeps(matrix, own):
            self._drop_partitions(level)
        if level == len(self._partitions):
            self.partitionings += level == 0
            self._partitions.append(Partition(matrix, settings.largest_block, core=settings.core,
                                              overlap=settings.overlap, strength=settings.strength,
                                              slow=self._partitions[0].slow if level else None,
                                              alone=settings.levels == 1, boxes=settings.tiles is not None, own=own))
        return self._partitions[level]

    def _build(self, pc: PETSc.PC, matrix: PETSc.Mat, own: Rows | None) -> None:
        settings = self.settings
        floating = nullity(matrix)
        matrices, prolongations = [matrix], []
        levels: list[Any] = []
        self._levels = levels
        first_tile = 0
        near = near_null_vectors(matrix)
        self._equilibration = equilibrated(matrix, near, attached=has_near_null(matrix))
        if self._equilibration is not None:
            matrices, near, own = [self._equilibration.matrix], self._equilibration.near, None
        budget = None
        if settings.tiles is not None:  # dead tiles are missing from it, and what is programmed are the others
            budget = Budget(settings.chip.working_tiles(settings.tiles))
            settings = dataclasses.replace(settings, chip=settings.chip.without_dead_tiles())
        digital_coarse = stalled = False
        while True:
            current, level = matrices[-1], len(levels)
            size = current.getSize()[0]
            if size <= settings.largest_block and not (settings.levels == 1 and settings.core):
                levels.append(CoarsestTile(current, settings, level, first_tile, self.programmings, floating, budget))
                break
            if level + 1 > settings.levels or (level + 1 == settings.levels and level > 0):
                digital_coarse = True
                break
            partition, own = self._partition(current, level, own), None
            smoother = Smoother(current, settings, level, first_tile, self.programmings, near, partition, budget)
            levels.append(smoother)
            first_tile += smoother.tiles
            if settings.levels == 1:
                break
            p, near, columns = smoother.prolongation(current)
            if partition.columns is not None and not np.array_equal(columns, partition.columns):
                self._drop_partitions(level + 1)  # the next level has other unknowns now
            partition.columns = columns
            if p.getSize()[1] > STALLED * size or p.getSize()[1] == 0:
                stalled = p.getSize()[1] > 0
                p.destroy()
                if level and stalled:  # this level itself becomes the last, and is solved digitally
                    levels.pop().free()
                    digital_coarse = True
                break
            coarse = galerkin(current, p)
            coarse.setBlockSize(p.getBlockSizes()[1])
            smoother.locate(coarse)
            prolongations.append(p)
            matrices.append(coarse)
            self._owned += [p, coarse]
            entries = [m.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] for m in matrices]
            if sum(entries) > LARGEST_COMPLEXITY * entries[0] and coarse.getSize()[0] > settings.largest_block:
                digital_coarse = True
                break
        if digital_coarse:
            levels.append(self._last_level(matrices[-1], first_tile, floating))
        elif stalled:
            cores, remedy = (f"a tile of {settings.largest_block}", "use a larger tile") if settings.core is None else (
                f"{settings.core} unknowns", "leave -pc_analog_core out, or raise it")
            say(matrix.getComm().tompi4py(), f"analogpde: no coarse level: cores of {cores} are too small to coarsen "
                f"this matrix. One-level Schwarz needs more iterations the larger the problem; {remedy}.")
        self._lines = describe_levels(matrices, levels, settings)
        self.tile_use = tile_use(matrix.getComm().tompi4py(), levels, settings.tiles)
        if self.tile_use is not None:
            hint = ""
            if self.tile_use.shared == 0 and lattice.attached(matrix) is None:
                hint = "; patches of a uniform mesh are alike only if the matrix has coordinates (docs: Method)"
            self._lines.insert(-2, f"{self.tile_use}{hint}")
        if self._equilibration is not None:
            self._lines.append(self._equilibration.words)
        programmed, cut = self.programmings + 1, self.partitionings
        self._lines.append(f"programmed {_times(programmed)}, cut into patches {_times(cut)}"
                           + (": partition re-used" if cut < programmed else ""))
        self._count_host(matrices, prolongations)
        self.digital_parts = []
        if len(levels) > 1:
            self._multigrid = self._cycle(pc, matrices, prolongations)
        if self.digital_parts:
            say(matrix.getComm().tompi4py(), f"analogpde: partly digital: {'; '.join(self.digital_parts)}.")
            self._lines += [f"PARTLY DIGITAL: {part}" for part in self.digital_parts]

    def _last_level(self, matrix: PETSc.Mat, first_tile: int, floating: int) -> CoarsestTile | None:
        """Return the last level, which exceeds a tile, on several; None if it is to be solved digitally. Collective.

        Raises:
            ProgrammingFailed: the user wants it on tiles, and they cannot hold it.
        """
        settings, size = self.settings, matrix.getSize()[0]
        if settings.coarse == "digital" or settings.tiles is not None:
            return None
        try:
            reach = settings.chip.lines << DEEPEST
            if size > reach:
                raise ProgrammingFailed(
                    f"the coarsest level, {size} unknowns, exceeds the {reach} that BlockAMC solves on tiles of "
                    f"{settings.chip.tile_size}. Allow more levels (-pc_analog_levels), use larger tiles, or "
                    "-pc_analog_coarse digital.")
            return CoarsestTile(matrix, settings, len(self._levels), first_tile, self.programmings, floating)
        except Exception as error:  # of any kind: on every rank or on none, but not the same one
            if settings.coarse == "blockamc":
                raise
            if size <= reach:
                say(matrix.getComm().tompi4py(), f"analogpde: the coarsest level goes to digital LU: {error}")
            return None

    def _cycle(self, pc: PETSc.PC, matrices: list[PETSc.Mat], prolongations: list[PETSc.Mat]) -> PETSc.PC:
        """Return PETSc's own multigrid with our smoothers in it: V(1,1), changeable under …pc_analog_mg_…."""
        count = len(matrices)
        cycle = PETSc.PC().create(comm=pc.getComm())
        cycle.setOptionsPrefix(f"{self.settings.prefix}pc_analog_")
        cycle.setType("mg")
        cycle.setMGLevels(count)
        cycle.setOperators(matrices[0], matrices[0])
        for depth, (matrix, context) in enumerate(zip(matrices, self._levels, strict=True)):
            solver = cycle.getMGSmoother(count - 1 - depth)
            solver.setOperators(matrix, matrix)
            inner = solver.getPC()
            if depth == count - 1:
                solver.setType("preonly")
            else:
                solver.setType("richardson")
                solver.setTolerances(max_it=1)
                solver.setNormType(PETSc.KSP.NormType.NONE)
                cycle.setMGInterpolation(count - 1 - depth, prolongations[depth])
            if context is None:
                inner.setType("redundant")  # every rank factorises the small coarse matrix
            else:
                inner.setType("python")
                inner.setPythonContext(context)
        read_multigrid(cycle, f"{self.settings.prefix}pc_analog_")
        for depth, context in enumerate(self._levels):
            kind = cycle.getMGSmoother(count - 1 - depth).getPC().getType()
            if context is None:
                self.digital_parts.append(f"the coarsest level, {matrices[depth].getSize()[0]} unknowns, is solved by "
                                          f"digital LU (no tile of {self.settings.chip.tile_size} holds it)")
            elif kind != "python":
                self.digital_parts.append(f"level {depth}, {matrices[depth].getSize()[0]} unknowns, uses PC "
                                          f"'{kind}' in place of its tiles")
        if self._levels[-1] is None:
            _factorise(cycle.getMGSmoother(0), matrices[-1])
        return cycle

    def _count_host(self, matrices: list[PETSc.Mat], prolongations: list[PETSc.Mat]) -> None:
        """Count what the host does in one V(1,1) cycle: two residuals and two transfers a level."""
        entries = 0
        for matrix in matrices[: len(prolongations)]:
            entries += 2 * int(matrix.getInfo(PETSc.Mat.InfoType.LOCAL)["nz_used"])
        for p in prolongations:
            entries += 2 * int(p.getInfo(PETSc.Mat.InfoType.LOCAL)["nz_used"])
        sent = 2 * sum(8 * level.seen.ghosts + level.sent for level in self._levels[: len(prolongations)])
        self._host = Ledger(host_flops=2 * entries, host_bytes=12 * entries, rank_bytes=sent)

    def _free(self, *, partitions: bool = True) -> None:
        if self._multigrid is not None:
            self._multigrid.destroy()
            self._multigrid = None
        for context in self._levels:
            if context is not None:
                context.free()
        for matrix in self._owned:
            matrix.destroy()
        if self._equilibration is not None:
            self._equilibration.free()
            self._equilibration = None
        self._levels, self._owned, self._fingerprint, self._holds = [], [], None, None
        self.tile_use = None
        self._lines = []
        if partitions:
            self._drop_partitions(0)

    def _drop_partitions(self, first: int) -> None:
        for partition in self._partitions[first:]:
            partition.free()
        del self._partitions[first:]
