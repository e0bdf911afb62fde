"""A chip of few tiles under PETSc: patches of a uniform mesh share tiles, the rest takes turns, and all is counted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.cost import TileUse
from analogpde.tile.sharing import IN_TURN

pytestmark = pytest.mark.mpi

N = 32  # unknowns a side; boxes of 8 × 8, 4 each way, cut between ranks by whole lines of boxes


@pytest.fixture
def points(PETSc):
    """A function that attaches coordinates to a matrix on n × n unknowns in natural order."""
    from analogpde.petsc.lattice import attach

    def give(matrix, n=N):
        begin, end = matrix.getOwnershipRange()
        attach(matrix, np.stack(np.divmod(np.arange(begin, end), n), axis=1) / (n - 1.0))
        return matrix

    return give


@pytest.fixture
def grid(distribute, points, gallery):
    """Poisson on the square with coordinates."""
    return lambda whole=None: points(distribute(gallery.poisson(N, N) if whole is None else whole))


@pytest.fixture
def session(PETSc):
    """The session of this test."""
    from analogpde.petsc import session

    return session


def expected_use(ranks, limit):
    """Of 4 × 4 boxes on one rank: first, inside (twice) and last ones differ in either direction, 9 kinds, of which
    the corners stand alone; each of two ranks has an end line and an inside line of 4 boxes, 2 × 3 kinds, and only the
    two inside boxes of either line are alike. The coarsest level is a patch of its own."""
    return TileUse(limit=limit, patches=17, tiles={1: 9, 2: 12}[ranks] + 1, shared={1: 5, 2: 4}[ranks], turning=0)


def test_patches_of_a_uniform_mesh_share_tiles(solve, gallery, grid, comm):
    if comm.size > 2:
        pytest.skip("counts are derived for one and two ranks")
    done = solve(gallery.poisson(N, N), matrix=grid(), analog_tiles_per_rank=16, pc_analog_core=64)
    done.assert_fp32()
    assert done.analog.tile_use == expected_use(comm.size, 16)
    assert f"reuse factor {17 / done.analog.tile_use.tiles:.3g}" in done.analog.describe()


def test_rows_of_any_scale_share_tiles_too(solve, gallery, grid, comm):
    if comm.size > 2:
        pytest.skip("counts are derived for one and two ranks")
    scale = np.random.default_rng(0).uniform(0.5, 2.0, N * N)
    whole = gallery.poisson(N, N).multiply(scale[:, None]).multiply(scale).tocsr()
    done = solve(whole, matrix=grid(whole), analog_tiles_per_rank=16, pc_analog_core=64, pc_analog_levels=1)
    assert done.reason > 0
    use = done.analog.tile_use  # without the coarsest level
    assert (use.patches, use.tiles) == (16, expected_use(comm.size, 16).tiles - 1)


@pytest.mark.parametrize(("tolerance", "shared"), [(1e-6, False), (1e-2, True)])
def test_what_differs_by_more_than_the_tolerance_is_not_shared(solve, gallery, grid, tolerance, shared):
    """Diagonals changed by up to 1 % change scaled entries, −1/4, by up to 0.25 %: every patch is another one."""
    whole = gallery.poisson(N, N)
    whole.setdiag(4.0 * (1.0 + 0.01 * np.random.default_rng(0).random(N * N)))
    done = solve(whole, matrix=grid(whole), analog_tiles_per_rank=100, pc_analog_core=64,
                 pc_analog_share_tolerance=tolerance)
    done.assert_fp32()
    use = done.analog.tile_use
    assert (use.shared > 0) == shared
    # 16 boxes and the coarsest tile; more where rank borders cut boxes
    assert use.tiles < use.patches if shared else use.tiles == use.patches >= 17


def test_without_a_limit_nothing_changes(solve, gallery, grid):
    whole = gallery.poisson(N, N)
    plain, located = solve(whole), solve(whole, matrix=grid(), pc_analog_share_tolerance=0.01)
    np.testing.assert_array_equal(plain.x, located.x)
    assert located.analog.tile_use is None
    assert "reuse" not in located.analog.describe()


def test_scattered_points_and_none_are_cut_as_without_a_lattice(PETSc, solve, gallery, distribute):
    """Then cores grow, on all ranks."""
    from analogpde.petsc.lattice import attach

    whole, limit = gallery.poisson(N, N), {"analog_tiles_per_rank": 100, "pc_analog_core": 50}
    scattered = distribute(whole)
    begin, end = scattered.getOwnershipRange()
    attach(scattered, np.random.default_rng(0).random((N * N, 2))[begin:end])
    with_points, without = solve(whole, matrix=scattered, **limit), solve(whole, **limit)
    with_points.assert_fp32()
    np.testing.assert_array_equal(with_points.x, without.x)


def test_coordinates_of_a_dm_are_found(PETSc, solve, gallery, comm):
    da = PETSc.DMDA().create([N, N], dof=1, stencil_width=1, stencil_type="star")
    da.setUniformCoordinates()
    matrix = da.createMatrix()
    row, column = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    (left, right), (low, high) = da.getRanges()
    for j in range(low, high):
        for i in range(left, right):
            row.index = (i, j)
            for index, value in (((i, j), 4.0), ((i - 1, j), -1.0), ((i + 1, j), -1.0), ((i, j - 1), -1.0),
                                 ((i, j + 1), -1.0)):
                if 0 <= min(index) and max(index) < N:
                    column.index = index
                    matrix.setValueStencil(row, column, value)
    matrix.assemble()
    done = solve(None, matrix=matrix, analog_tiles_per_rank=100, pc_analog_core=64)
    assert done.reason > 0
    assert done.analog._levels[0].boxes is not None
    da.destroy()


def test_coordinates_survive_the_conversion_to_aij(solve, gallery, grid, PETSc):
    from analogpde.petsc.matrix import COORDINATES

    located = grid()
    matrix = located.convert("baij", PETSc.Mat())
    matrix.compose(COORDINATES, located.query(COORDINATES))
    done = solve(gallery.poisson(N, N), matrix=matrix, analog_tiles_per_rank=100)
    done.assert_fp32()
    assert done.analog._levels[0].boxes is not None


def test_systems_keep_their_nodes_together(solve, gallery, distribute, points, comm):
    """Two unknowns a node: boxes of 64 unknowns are 32 nodes."""
    whole = sp.csr_matrix(sp.kron(gallery.poisson(N, N), np.array([[2.0, 0.5], [0.5, 2.0]])))
    mine = 2 * (N * N // comm.size + (comm.rank < N * N % comm.size))
    matrix = distribute(whole, rows=comm.allgather(mine))
    matrix.setBlockSize(2)
    begin, end = (edge // 2 for edge in matrix.getOwnershipRange())
    from analogpde.petsc.lattice import attach

    attach(matrix, np.stack(np.divmod(np.arange(begin, end), N), axis=1).astype(float))
    done = solve(whole, matrix=matrix, analog_tiles_per_rank=100)
    done.assert_fp32()
    smoother = done.analog._levels[0]
    assert smoother.boxes is not None
    assert (smoother.patches.core % 2 == 0).all()
    assert done.analog.tile_use.shared > 0


@pytest.mark.parametrize("accelerator", ["auto", "none"])
def test_the_rest_takes_turns_and_every_programming_is_counted(solve, gallery, grid, session, comm, accelerator):
    """On four tiles a rank three of its patches stay and one tile is left for turns; ideal cells: one an entry."""
    done = solve(gallery.poisson(N, N), matrix=grid(), prefix="r_", analog_chip="ideal",
                 analog_tiles_per_rank=4, pc_analog_core=64, ksp_analog_accelerator=accelerator)
    done.assert_fp32()
    use, operations = done.analog.tile_use, session().solves["r_"].worst.operations
    n = done.iterations + 3  # corrections: the first solve asks whether the matrix is nearly singular
    fine, coarse = done.analog._levels
    assert comm.allgather(fine.bank.use.tiles - fine.bank.use.turning) == [3] * comm.size
    assert use.turning == use.tiles - 3 * comm.size
    # V(1,1): the fine level is applied twice in a cycle, the coarsest once; the coarsest is in turn as well
    assert coarse.bank.use.turning == (comm.rank == 0)
    turns = 2 * (use.turning - 1) + 1
    assert operations.tiles_multiplexed == n * turns
    assert operations.tiles_reprogrammed == 0
    assert operations.tiles_programmed == use.tiles + n * turns
    turning = [level.bank.turns.distinct.value if level.bank.turns else () for level in (fine, coarse)]
    cells = [comm.allreduce(len(entries)) for entries in turning]
    at_set_up = comm.allreduce(fine.bank.programmed.cells_written + coarse.bank.programmed.cells_written)
    assert operations.cells_written == at_set_up + n * (2 * cells[0] + cells[1])


@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_any_number_of_tiles_gives_the_same_answer_to_fp32(solve, gallery, grid, tiles):
    whole = gallery.poisson(N, N)
    done, free = solve(whole, matrix=grid(), analog_tiles_per_rank=tiles), solve(whole)
    done.assert_fp32()
    assert abs(done.iterations - free.iterations) <= 3


def test_bit_for_bit_repeatable_with_turns(solve, gallery, grid):
    def run():
        return solve(gallery.poisson(N, N), matrix=grid(), analog_tiles_per_rank=3, analog_seed=5)

    np.testing.assert_array_equal(run().x, run().x)


def test_transposed_turns(solve, gallery, points, distribute, PETSc):
    whole = gallery.convection(N, 0.5)
    done = solve(whole, matrix=points(distribute(whole)), analog_tiles_per_rank=3)
    done.assert_fp32()
    done.ksp.solveTranspose(done.rhs, done.solution)
    assert done.ksp.getConvergedReason() > 0


@pytest.mark.parametrize("transposed", [False, True])
def test_a_programming_in_turn_that_fails_on_one_rank_ends_the_solve(solve, gallery, grid, comm, monkeypatch, capfd,
                                                                     PETSc, transposed):
    from analogpde.errors import ProgrammingFailed
    from analogpde.tile import sharing

    done = solve(gallery.poisson(N, N), matrix=grid(), analog_tiles_per_rank=2)
    program = sharing.program_bank

    def fail(*args, name="", **kwargs):
        if name.endswith(IN_TURN) and comm.rank == comm.size - 1:
            raise ProgrammingFailed("stays unstable")
        return program(*args, name=name, **kwargs)

    monkeypatch.setattr(sharing, "program_bank", fail)
    again = done.ksp.solveTranspose if transposed else done.ksp.solve
    again(done.rhs, done.solution)
    assert done.ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_PCSETUP_FAILED
    assert comm.allreduce("stays unstable" in capfd.readouterr().err) >= 1
    monkeypatch.undo()
    again(done.rhs, done.solution)
    assert done.ksp.getConvergedReason() > 0


@pytest.mark.parametrize("wrong", ["short", "nan", "flat"])
def test_coordinates_that_do_not_fit_are_refused_on_all_ranks(PETSc, solve, cause, gallery, grid, comm, wrong):
    matrix = grid()
    mine = matrix.getLocalSize()[0]
    last = comm.rank == comm.size - 1
    count = 2 * mine - (2 * last if wrong == "short" else 0)
    vector = PETSc.Vec().createMPI((count, PETSc.DETERMINE), bsize=2 if wrong != "flat" else 1)
    vector.set(0.5)
    if wrong == "nan" and last:
        vector.array[0] = np.nan
    matrix.compose("coordinates", vector)
    text = cause(solve, gallery.poisson(N, N), matrix=matrix, analog_tiles_per_rank=8)
    assert f"on rank {0 if wrong == 'flat' else comm.size - 1}" in text
    assert "dim entries for each" in text


def test_the_report_tells(solve, gallery, grid, session, comm):
    from analogpde.report import build, to_text
    from analogpde.report.model import Report
    from analogpde.report.schema import validate

    done = solve(gallery.poisson(N, N), matrix=grid(), analog_tiles_per_rank=4, pc_analog_core=64)
    use = done.analog.tile_use
    report = build(session())
    data = report.as_dict()
    validate(data)
    assert data["solves"][0]["tile_use"] == use.as_dict()
    assert data["totals"]["tiles_multiplexed"] == session().totals.tiles_multiplexed > 0
    assert f"reuse factor {use.reuse_factor:.3g}" in to_text(report)
    # what an earlier writer did not know is not missed
    del data["solves"][0]["tile_use"], data["totals"]["tiles_multiplexed"]
    assert Report.from_dict(data).solves[0].tile_use is None
