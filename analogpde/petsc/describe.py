"""What -ksp_view and `print` say of a preconditioner's levels."""

from __future__ import annotations

from typing import Any

import numpy as np

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.petsc.hierarchy import Settings, Smoother
from analogpde.petsc.stack import MPI, PETSc
from analogpde.tile.settling import bits_of


def describe_levels(matrices: list[PETSc.Mat], levels: list[Any], settings: Settings) -> list[str]:
    """Return a line for each level, one of their complexity and one of the tiles' health. Collective.

    Args:
        matrices: of the levels. levels: smoothers and the coarsest tile, None for a digital one. settings: of both.
    """
    entries = [matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] for matrix in matrices]
    comm = matrices[0].getComm().tompi4py()
    lines = []
    blockamc = settings.blockamc
    noun = f"patches by BlockAMC on up to {4**blockamc} arrays" if blockamc else "tiles"
    for depth, context in enumerate(levels):
        size = matrices[depth].getSize()[0]
        row = f"{entries[depth] / max(1, size):.1f} entries a row"
        ranks = comm.allreduce(int(matrices[depth].getLocalSize()[0] > 0))
        where = f" on {ranks} of {comm.size} ranks" if comm.size > 1 else ""
        if isinstance(context, Smoother):
            driven = comm.allreduce(context.bank.lines)
            shift = comm.allreduce(context.bank.shift * context.bank.count) / max(1, context.tiles)
            patch = driven / max(1, context.tiles)
            fill = f"fill {patch / settings.largest_block:.0%}"
            lines.append(
                f"level {depth}: {size} unknowns, {row}, {context.tiles} {noun}{where}, mean core "
                f"{size / max(1, context.tiles):.0f}, mean patch {patch:.0f} ({fill}), shift {shift:.3g}")
        elif context is None:
            lines.append(f"level {depth} (coarsest): {size} unknowns, {row}, digital LU on every rank")
        else:
            tile = settings.chip.tile_size
            where = f"BlockAMC on {4**context.depth} arrays of {tile}" if context.depth else "one tile"
            lines.append(f"level {depth} (coarsest): {size} unknowns, {row}, {where}")
    complexity = sum(entries) / max(1.0, entries[0])
    shared = "; no tile is shared, as the chip has one for every patch" if settings.tiles is None else ""
    lines.append(f"operator complexity {complexity:.2f} (entries of all levels over the finest){shared}")
    return [*lines, _health(comm, levels, settings.chip)]


def told_of(pc: PETSc.PC, operations: Ledger) -> dict[str, Any]:
    """Return what a record of a solve says of its preconditioner: description, digital parts, use of the tiles.

    Args:
        pc: of any type. operations: of the solve.
    """
    if pc.getType() == "analog":
        context = pc.getPythonContext()
        return {"description": str(context.describe()), "digital_parts": "; ".join(context.digital_parts),
                "tile_use": context.tile_use}
    inside = f"tiles work only inside the digital preconditioner '{pc.getType()}'" if operations.inv_shots else ""
    return {"description": f"PC {pc.getType()}", "digital_parts": inside}


def _health(comm: MPI.Comm, levels: list[Any], chip: Chip) -> str:
    """Return what probe shots of all tiles of all levels have shown. Collective."""
    banks = [context.bank for context in levels if context is not None]
    smallest = comm.allreduce(min((bank.smallest for bank in banks), default=np.inf), op=MPI.MIN)
    delta = comm.allreduce(max((bank.delta for bank in banks), default=0.0), op=MPI.MAX)
    again = comm.allreduce(sum(bank.programmed.tiles_reprogrammed for bank in banks))
    line = (f"probed: smallest singular value {smallest:.2g} of a unit diagonal (errors grow up to "
            f"{1 / smallest:.2g} times), read noise δ = {delta:.2g} (limit 1), {again} tiles programmed again")
    if chip.amplifier.gain_bandwidth is not None:
        slowest = comm.allreduce(max((bank.slowest for bank in banks), default=0.0), op=MPI.MAX)
        if chip.amplifier.settle_time is None:
            line += f"; the slowest tile settles to {bits_of(chip)} bits in {slowest:.3g} s"
        else:
            line += f"; read after {slowest:.3g} s"
    if not chip.wire.ideal:
        error = comm.allreduce(max((bank.wire_error for bank in banks), default=0.0), op=MPI.MAX)
        words = "exactly" if error == 0 else f"to an estimated {error:.1g}" if np.isfinite(error) else (
            "approximately, beyond where the estimate holds")
        line += f"; wires eliminated {words}"
    return line
