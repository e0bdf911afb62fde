"""Set-ups and solvers leave no memory behind."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest

WAYS = ["another KSP", "reset", "changed values", "failing set-up"]


def resident() -> int:
    """This process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.mpi
def test_memory_does_not_grow_over_200_set_ups(PETSc, solve, gallery):
    alone = PETSc.COMM_WORLD.size == 1
    done = solve(gallery.poisson(45, 45), prefix="m_", m_pc_analog_reprogram="always")
    tiles = sum(level.bank.nbytes for level in done.analog._levels)  # of this rank; each set-up makes them anew
    rounds, before = 200 if alone else 40, 0
    banks = []
    for k in range(20 + rounds):
        way = WAYS[k // 5 % 4]
        if way == "another KSP":
            done.ksp.destroy()
            done.ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
            done.ksp.setType("analog")
        elif way == "reset":
            done.ksp.reset()
        elif way == "changed values":
            done.matrix.scale(1.01)
        else:
            done.matrix[0, 0] = -4.0 if k % 2 == 0 else 4.0  # refused after partitioning
            done.matrix.assemble()
        done.ksp.setOperators(done.matrix)
        if way == "failing set-up" and k % 2 == 0:
            with pytest.raises(PETSc.Error):
                done.ksp.setUp()
        else:
            done.ksp.setUp()
            banks += [weakref.ref(level.bank) for level in done.analog._levels]
        if k % 10 == 9:
            gc.collect()
            PETSc.garbage_cleanup(PETSc.COMM_WORLD)
        if k == 19:  # allocators have what they need by now
            before = resident()
    # of all set-ups only the last one's tiles are alive
    assert sum(bank() is not None for bank in banks) == len(done.analog._levels)
    # the bound is what would stay if each set-up left a tenth of its tiles behind
    assert resident() - before < rounds / 10 * max(tiles, 1_000_000)
