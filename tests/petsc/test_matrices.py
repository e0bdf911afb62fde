"""Matrices of every type, layout and size."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.mpi

RESIDUALS = [{}, {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 54}]


def of_type(PETSc, distribute, whole, kind):
    """The matrix as PETSc type `kind`."""
    matrix = distribute(whole)
    if kind == "nest":
        index = [PETSc.IS().createStride(*part, comm=PETSc.COMM_WORLD) for part in halves(matrix)]
        blocks = [[matrix.createSubMatrix(row, column) for column in index] for row in index]
        nest = PETSc.Mat().createNest(blocks, isrows=index, iscols=index, comm=PETSc.COMM_WORLD)
        nest.assemble()
        return nest
    if kind == "sbaij":
        matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    if kind == "baij":
        matrix.setBlockSizes(1, 1)
    return matrix.convert(kind, PETSc.Mat())


def halves(matrix):
    """Size, start and step of the first and the second half of this rank's rows."""
    begin, end = matrix.getOwnershipRange()
    middle = (begin + end) // 2
    return (middle - begin, begin, 1), (end - middle, middle, 1)


@pytest.mark.parametrize("kind", ["aij", "baij", "sbaij", "dense", "nest", "aijperm", "aijcrl", "sell", "is"])
@pytest.mark.parametrize("given", RESIDUALS)
def test_types_with_entries(PETSc, solve, gallery, distribute, kind, given):
    whole = gallery.poisson(16, 15)
    matrix = of_type(PETSc, distribute, whole, kind)
    assert matrix.getType().removeprefix("seq").removeprefix("mpi") == kind
    done = solve(whole, matrix=matrix, **given)
    done.assert_fp32()
    # none of the conversions must change what the user's matrix is, or leave it in a state in which it cannot be used
    x, y = matrix.createVecs()
    x.set(1.0)
    matrix.mult(x, y)
    ones = np.concatenate(PETSc.COMM_WORLD.tompi4py().allgather(y.array_r.copy()))
    assert np.array_equal(ones, whole @ np.ones(240))
    done.ksp.solve(done.rhs, done.solution)
    assert done.analog.programmings == 1


@pytest.mark.parametrize("kind", ["aij", "baij", "dense"])
def test_types_of_unsymmetric_matrices(PETSc, solve, gallery, distribute, kind):
    whole = gallery.convection(14, 1.0)
    solve(whole, matrix=of_type(PETSc, distribute, whole, kind)).assert_fp32()


def test_blocks_larger_than_one(PETSc, solve, gallery, distribute):
    whole = sp.csr_matrix(sp.kron(gallery.poisson(9, 8), np.array([[2.0, 0.5], [0.5, 1.0]])))
    rows = [72 // PETSc.COMM_WORLD.size * 2] * PETSc.COMM_WORLD.size
    rows[-1] += 144 - sum(rows)
    matrix = distribute(whole, rows=rows)
    matrix.setBlockSizes(2, 2)
    solve(whole, matrix=matrix.convert("baij", PETSc.Mat())).assert_fp32()


class Operator:
    """A matrix-free operator."""

    def __init__(self, matrix):
        self.matrix = matrix

    def mult(self, mat, x, y):
        self.matrix.mult(x, y)


@pytest.fixture
def shell(PETSc):
    """A maker of shell matrices around others."""

    def make(matrix):
        shell = PETSc.Mat().createPython(matrix.getSizes(), Operator(matrix), comm=matrix.getComm())
        shell.setUp()
        return shell

    return make


def test_a_shell_matrix_with_an_assembled_one_for_the_tiles(PETSc, solve, gallery, distribute, shell):
    whole = gallery.poisson(16, 15)
    inner = distribute(whole)
    done = solve(whole, matrix=shell(inner), prepare=lambda ksp: ksp.setOperators(shell(inner), inner))
    done.assert_fp32()


def test_tiles_that_hold_a_neighbouring_matrix(solve, gallery, distribute):
    whole = gallery.convection(14, 0.3)
    tiles = distribute(gallery.poisson(14, 14))
    matrix = distribute(whole)
    done = solve(whole, matrix=matrix, prepare=lambda ksp: ksp.setOperators(matrix, tiles))
    done.assert_fp32()


def test_a_shell_matrix_alone_is_refused_and_names_the_remedy(solve, gallery, distribute, shell, cause):
    text = cause(solve, gallery.poisson(16, 15), matrix=shell(distribute(gallery.poisson(16, 15))))
    assert "got 'python'; allowed: an assembled matrix (aij, baij, sbaij, dense, nest)" in text
    assert "KSPSetOperators(A, P)" in text


def test_a_shell_matrix_with_a_sliced_residual_is_refused(solve, gallery, distribute, shell, cause):
    inner = distribute(gallery.poisson(16, 15))
    text = cause(solve, gallery.poisson(16, 15), matrix=shell(inner), ksp_analog_residual="sliced",
                 prepare=lambda ksp: ksp.setOperators(shell(inner), inner))
    assert "-ksp_analog_residual sliced with a matrix of type: got 'python'" in text


def test_a_shell_matrix_under_a_digital_preconditioner(solve, gallery, distribute, shell):
    done = solve(gallery.mass(10), matrix=shell(distribute(gallery.mass(10))), pc_type="none")
    done.assert_fp32()


# ---- layouts and sizes ------------------------------------------------------------------------------------------

def layouts(size, rows):
    """Ways to share out rows: everything on one rank, one rank without, very unequal."""
    yield from ([rows if k == rank else 0 for k in range(size)] for rank in range(size))
    if size > 1:
        for rank in range(size):
            shares = [0 if k == rank else rows // (size - 1) for k in range(size)]
            shares[(rank + 1) % size] += rows - sum(shares)
            yield shares
        yield [rows - size + 1] + [1] * (size - 1)


@pytest.mark.parametrize("given", [{}, {"pc_analog_levels": 1}, *RESIDUALS[1:], {"pc_analog_levels": 2,
                                                                                  "analog_tile_size": 8}])
def test_empty_ranks_and_unequal_shares(PETSc, solve, gallery, distribute, given):
    from analogpde.petsc import session

    whole = gallery.poisson(16, 15)
    for rows in layouts(PETSc.COMM_WORLD.size, 240):
        done = solve(whole, matrix=distribute(whole, rows=rows), **given)
        done.assert_fp32()
        steps = [step.inv_shots for step in session().solves[""].worst.history]
        everywhere = PETSc.COMM_WORLD.tompi4py().allgather(steps)
        assert everywhere.count(steps) == PETSc.COMM_WORLD.size  # also on ranks that drive no tile
        assert steps[-1] > 0


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("given", [{}, {"pc_analog_levels": 1}, {"pc_analog_levels": 1, "pc_analog_core": 1},
                                   {"analog_chip": "pku2025"}, {"analog_tile_size": 2, "pc_analog_levels": 1}])
def test_tiny_systems(solve, gallery, rows, given):
    done = solve(gallery.poisson(rows), **given)
    assert done.reason > 0
    assert done.forward_error() <= 2.0**-23
    if rows > 1:  # 1 × 1 in float32 is exact here
        done.assert_fp32()


@pytest.mark.parametrize("value", [-3.0, 1e-100, 1e100])
def test_one_unknown_of_any_size(solve, value):
    done = solve(sp.csr_matrix([[value]]), np.array([2.0]))
    assert done.reason > 0
    assert done.x[0] == pytest.approx(2.0 / value, rel=2.0**-23)


@pytest.mark.parametrize("tile", [1, 2, 3, 7, 128, 4096])
def test_any_tile_size(solve, gallery, tile):
    solve(gallery.poisson(10, 10), analog_tile_size=tile).assert_fp32()


def test_decoupled_unknowns(solve, gallery):
    # Dirichlet rows as DOLFINx leaves them: only the diagonal
    keep = (np.arange(256) % 16 > 0).astype(float)
    whole = sp.diags_array(keep) @ gallery.poisson(16, 16) @ sp.diags_array(keep) + sp.diags_array(1 - keep)
    solve(sp.csr_matrix(whole)).assert_fp32()
    solve(sp.csr_matrix(sp.diags_array(1.0 + np.arange(300) % 7))).assert_fp32()


def test_a_dense_system(solve):
    rng = np.random.default_rng(5)
    whole = rng.normal(size=(200, 200)) / 20 + 3 * np.eye(200)
    solve(sp.csr_matrix(whole)).assert_fp32()


def test_components_that_do_not_touch(solve, gallery):
    whole = sp.block_diag([gallery.poisson(n, n) * 10.0**n for n in (2, 3, 5, 9, 1, 12)])
    solve(sp.csr_matrix(whole)).assert_fp32()


def test_explicit_zeros_change_nothing(solve, gallery, distribute):
    whole = gallery.poisson(12, 12)
    padded = whole.tocoo()
    rng = np.random.default_rng(2)
    row = np.concatenate((padded.row, rng.integers(0, 144, 500)))
    column = np.concatenate((padded.col, rng.integers(0, 144, 500)))
    value = np.concatenate((padded.data, np.zeros(500)))
    done = solve(whole, matrix=distribute(sp.csr_matrix((value, (row, column)), shape=(144, 144))))
    done.assert_fp32()
