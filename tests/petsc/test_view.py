"""What -ksp_view, print and -log_view say: ten lines in which every number is the right one."""

from __future__ import annotations

import re

import numpy as np
import pytest

LOGGED = """
import petsc4py, sys
petsc4py.init(sys.argv)
from petsc4py import PETSc
import numpy as np
n = 300
A = PETSc.Mat().createAIJ([n, n], nnz=3)
for i in range(*A.getOwnershipRange()):
    for j in range(max(0, i - 1), min(n, i + 2)):
        A.setValue(i, j, 2.0 if i == j else -1.0)
A.assemble()
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setFromOptions()
x, b = A.createVecs()
b.set(1.0)
ksp.solve(b, x)
"""


@pytest.mark.mpi
def test_every_line_is_true(PETSc, comm, solve, gallery):
    # pku2025 with 32-tiles: five levels would still make ten lines
    done = solve(gallery.poisson(40, 30), analog_chip="pku2025", analog_tile_size=32)
    lines = done.analog.describe().splitlines()
    assert repr(done.analog) == done.analog.describe()
    assert len(lines) == 4 + len(done.analog._levels) <= 10
    assert max(len(line) for line in lines) <= 150
    matrices = [done.matrix, *done.analog._owned[1::2]]
    entries = [matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] for matrix in matrices]
    banks = [level.bank for level in done.analog._levels]
    for line, matrix, nonzeros, level, bank in zip(lines[1:], matrices, entries, done.analog._levels, banks,
                                                   strict=False):
        size = matrix.getSize()[0]
        assert f"{size} unknowns, {nonzeros / size:.1f} entries a row" in line
        if level is not done.analog._levels[-1]:
            tiles = comm.allreduce(bank.count)
            owners = np.count_nonzero(np.diff(matrix.getOwnershipRanges()))
            assert f"{tiles} tiles" + (f" on {owners} of {comm.size} ranks" if comm.size > 1 else "") in line
            patch = comm.allreduce(bank.lines) / tiles
            assert f"mean core {size / tiles:.0f}, mean patch {patch:.0f} (fill {patch / 32:.0%})" in line
            shift = float(re.search(r"shift ([\d.e-]+)", line)[1])
            assert shift == pytest.approx(comm.allreduce(bank.shift * bank.count) / tiles, rel=5e-3)
    assert f"operator complexity {sum(entries) / entries[0]:.2f} (entries of all levels over the finest); no tile is " \
        "shared, as the chip has one for every patch" in lines
    probed = next(line for line in lines if line.startswith("probed"))
    smallest, growth, delta = (float(number) for number in re.findall(r"(\d[\d.e-]*) (?:of|times)|= (\S+)", probed)
                               for number in number if number)
    assert smallest == pytest.approx(min(comm.allgather(min(bank.smallest for bank in banks))), rel=0.05)
    assert growth == pytest.approx(1 / smallest, rel=0.1)
    assert delta == pytest.approx(max(comm.allgather(max(bank.delta for bank in banks))), rel=0.05)
    again = comm.allreduce(sum(bank.programmed.tiles_reprogrammed for bank in banks))
    assert f"{again} tiles programmed again" in probed
    assert lines[-1] == "programmed once, cut into patches once"


def test_the_smallest_singular_value_is_that_of_the_tiles(solve, gallery):
    done = solve(gallery.poisson(8, 8), analog_chip="ideal")
    exact = 1 - np.cos(np.pi / 9)  # of the matrix scaled to a unit diagonal
    # the estimate approaches from above and is divided by a margin of 1.1, to two digits
    shown = float(re.search(r"singular value (\S+)", done.analog.describe())[1])
    assert exact / 1.1 * 0.95 <= shown <= 1.1 * exact
    assert "δ = 0 " in done.analog.describe()


def test_log_view_shows_what_the_tiles_did(python):
    done = python(LOGGED, "-ksp_type", "analog", "-log_view", module=True)
    assert done.returncode == 0, done.stderr
    for event, count in (("Partition", 1), ("Program", 2), ("Apply", None), ("Coarse", None)):
        found = re.search(rf"^Analog{event} +(\d+)", done.stdout, re.MULTILINE)
        assert found, done.stdout
        assert int(found[1]) == count if count else int(found[1]) >= 2
