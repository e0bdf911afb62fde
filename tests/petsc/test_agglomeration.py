"""Coarse levels of few unknowns live on few ranks, and that changes nothing but where they live."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize(("counts", "fewest", "expected"), [
    ([40, 60], 50, [40, 60]), ([40, 59], 50, [99, 0]), ([40, 60], 0, [40, 60]), ([40, 60], 51, [100, 0]),
    ([10, 10, 10, 10], 20, [20, 0, 20, 0]), ([10, 10, 10, 10], 15, [20, 0, 20, 0]),
    ([30, 1, 1, 30], 30, [31, 0, 31, 0]),
    ([0, 0, 7, 5], 10, [0, 0, 12, 0]), ([0, 90, 0, 5], 50, [0, 95, 0, 0]), ([1, 1, 1], 1, [1, 1, 1]),
    ([7], 1000, [7]), ([1] * 9, 3, [3, 0, 0, 3, 0, 0, 3, 0, 0]), ([100, 1, 1, 1], 30, [100, 3, 0, 0])])
def test_who_owns_what(PETSc, counts, fewest, expected):
    from analogpde.petsc.partition import agglomerated

    assert agglomerated(np.array(counts), fewest).tolist() == expected


def owners(done):
    """The number of ranks with unknowns of each level, finest first, by the matrices themselves."""
    ksp, depth = done.ksp, []
    matrices = [ksp.getOperators()[0], *done.analog._owned[1::2]]
    for matrix in matrices:
        sizes = np.diff(matrix.getOwnershipRanges())
        depth.append(int(np.count_nonzero(sizes)))
    return depth


def test_small_levels_live_on_few_ranks(comm, solve, gallery):
    # tile 16, cores of 8: 2400, about 300, 40 and 5 unknowns
    given = {"analog_tile_size": 16, "ksp_rtol": 1e-8}
    whole = gallery.poisson(60, 40)
    spread = solve(whole, pc_analog_rank_unknowns=0, **given)
    assert owners(spread)[0] == comm.size
    sizes = [int(line.split(": ")[1].split()[0]) for line in spread.analog.describe().splitlines()
             if line.startswith("level")]
    for fewest in (80, 500):
        done = solve(whole, pc_analog_rank_unknowns=fewest, **given)
        ranks = owners(done)
        assert ranks[0] == comm.size  # the finest level is the user's
        for size, count in zip(sizes[1:], ranks[1:], strict=False):
            assert count <= max(1, 1.2 * size / fewest)  # a fifth more or fewer cores than where they are cut by ranks
        assert ranks[-1] == 1
        if comm.size > 1:
            assert f"1 of {comm.size} ranks" in done.analog.describe()
        assert done.reason == 2
        assert abs(done.iterations - spread.iterations) <= 2


@pytest.mark.parametrize("case", ["elasticity", "neumann", "convection", "digital", "values"])
def test_what_lives_on_few_ranks_still_solves(PETSc, solve, gallery, blocks, distribute, case):
    given = {"analog_tile_size": 16 if case != "elasticity" else 48, "pc_analog_rank_unknowns": 100}
    b = matrix = None
    if case == "elasticity":
        whole, modes = gallery.elasticity(16)
        matrix = blocks(whole, 2, modes)
    elif case == "neumann":
        whole = gallery.neumann(40, 30)
        matrix = distribute(whole)
        matrix.setNullSpace(PETSc.NullSpace().create(constant=True, comm=matrix.getComm()))
        b = np.cos(np.pi * (np.arange(1200) % 30 + 0.5) / 30)
    elif case == "convection":
        whole = gallery.convection(35, 2.0)
    else:
        whole = gallery.poisson(40, 30)
        given |= {"pc_analog_levels": 2} if case == "digital" else {}
    done = solve(whole, b, matrix=matrix, **given)
    assert owners(done)[-1] == 1
    assert len(owners(done)) >= 2
    if case == "neumann":
        assert done.reason > 0 and done.relative_residual <= 1e-6
    else:
        done.assert_fp32()
    if case == "values":
        partitions = list(done.analog._partitions)
        done.matrix.scale(2.0)
        done.ksp.solve(done.rhs, done.solution)
        assert done.analog._partitions == partitions
        done.whole = 2.0 * done.whole
        done.__dict__.pop("x")
        done.__dict__.pop("residual", None)
        done.assert_fp32()
        x = done.matrix.createVecRight()
        done.ksp.solveTranspose(done.rhs, x)
        assert done.ksp.getConvergedReason() > 0
