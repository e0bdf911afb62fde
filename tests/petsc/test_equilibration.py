"""Matrices whose rows and columns have different scales, by PC analog and by `solve`."""

import numpy as np
import pytest
import scipy.sparse as sp

import analogpde

pytestmark = pytest.mark.mpi
WORDS = {"rows": "rows scaled by |diagonal|^-1, columns by |diagonal|^0",
         "columns": "rows scaled by |diagonal|^0, columns by |diagonal|^-1"}


def scale(n, decades=3.0):
    return sp.diags_array(10.0 ** np.random.default_rng(7).uniform(-decades, decades, n))


def exact(done, whole):
    """‖x − x₆₄‖/‖x₆₄‖, x₆₄ by a direct solve of the matrix as the program has it."""
    wanted = np.linalg.solve(whole.toarray(), done.b)
    return np.linalg.norm(done.x - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_scaled_rows_and_columns(solve, gallery, side):
    a = gallery.poisson(24, 23)
    d = scale(a.shape[0])
    whole = sp.csr_matrix(d @ a if side == "rows" else a @ d)
    b = np.asarray(whole @ (1.0 + np.random.default_rng(1).random(a.shape[0])))
    done = solve(whole, b, analog_tile_size=64)
    plain = solve(a, analog_tile_size=64)
    assert done.reason > 0
    assert exact(done, whole) < 2.0**-23
    assert WORDS[side] in done.analog.describe()
    assert "scaled by" not in plain.analog.describe()
    # rows: the same tiles but for rounding, and draws of noise. Columns: y = d x spans six decades, and where it is
    # smallest x wants seven digits of it: thirteen of the whole in place of seven
    assert done.iterations <= (plain.iterations + 2 if side == "rows" else 2 * plain.iterations)


@pytest.mark.parametrize("accelerator", ["auto", "fgmres", "none"])
def test_a_smooth_scale_of_rows_over_four_decades(solve, gallery, accelerator):
    """Not symmetric, though waves do not show it; the residual of the large rows must not rule the others'."""
    a = gallery.poisson(40, 40)
    x, y = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
    d = sp.diags_array(10.0 ** (4.0 * np.exp(-50 * ((x - 0.5) ** 2 + (y - 0.4) ** 2))).ravel())
    whole = sp.csr_matrix(d @ a)
    b = np.asarray(whole @ np.random.default_rng(1).standard_normal(1600))
    done = solve(whole, b, ksp_analog_accelerator=accelerator)
    plain = solve(a, ksp_analog_accelerator=accelerator)
    assert done.reason > 0
    assert exact(done, whole) < 2.0**-23
    # most rows have 1e-4 of the right-hand side: twelve digits to go in place of eight, at the same rate
    assert done.iterations <= 1.5 * plain.iterations + 2


def test_changed_values_and_reset(solve, gallery, PETSc):
    """The scales follow the values, and go when they do."""
    a = gallery.poisson(24, 23)
    d = scale(a.shape[0])
    done = solve(sp.csr_matrix(d @ a), analog_tile_size=64)
    matrix, context = done.matrix, done.analog
    begin, end = matrix.getOwnershipRange()
    for whole, scaled in ((sp.csr_matrix(a), False), (sp.csr_matrix(a @ d), True)):
        own = whole[begin:end]
        own.sort_indices()
        matrix.setValuesCSR(own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data)
        matrix.assemble()
        done.ksp.solve(done.rhs, done.solution)
        assert done.ksp.getConvergedReason() > 0
        assert ("scaled by" in context.describe()) is scaled
    done.ksp.getPC().reset()
    assert "scaled by" not in context.describe()


def transposed_error(done, whole):
    """Solve Mᵀx = b on the same tiles for a random x; return ‖error‖/‖x‖."""
    x = np.random.default_rng(3).standard_normal(whole.shape[0])
    begin, end = done.matrix.getOwnershipRange()
    done.rhs.array[:] = (whole.T @ x)[begin:end]
    done.ksp.solveTranspose(done.rhs, done.solution)
    assert done.ksp.getConvergedReason() > 0
    got = np.concatenate(done.matrix.getComm().tompi4py().allgather(done.solution.array_r.copy()))
    return np.linalg.norm(got - x) / np.linalg.norm(x)


def test_transposed(solve, gallery):
    a = gallery.poisson(20, 19)
    whole = sp.csr_matrix(scale(a.shape[0], 1.0) @ a)
    done = solve(whole, analog_tile_size=64)
    assert transposed_error(done, whole) < 2.0**-23


def test_rows_that_are_set_to_a_small_one(solve, gallery):
    """As MatZeroRows leaves them: columns kept, 1 on the diagonal beside 4e5."""
    a = 1e5 * gallery.poisson(20, 20)
    keep = np.ones(400)
    keep[:20] = keep[-20:] = 0.0
    whole = sp.csr_matrix(sp.diags_array(keep) @ a + sp.diags_array(1.0 - keep))
    whole.eliminate_zeros()
    b = np.random.default_rng(5).standard_normal(400)
    done = solve(whole, b, analog_tile_size=64)
    assert done.reason > 0
    assert exact(done, whole) < 2.0**-23
    assert "singleton rows" in done.analog.describe()
    like = solve(sp.csr_matrix(sp.diags_array(keep) @ gallery.poisson(20, 20) + sp.diags_array(1.0 - keep)), b,
                 analog_tile_size=64)
    # once the host has set these rows, the same system times 1e5 for the others: a draw of noise, not 100 iterations
    assert done.iterations <= like.iterations + 2
    assert transposed_error(done, whole) < 2.0**-23
    alone = analogpde.solve(whole, b, chip=analogpde.load_chip("rram128").replace(tile_size=64))
    assert alone.converged
    assert np.linalg.norm(alone.x - done.x) < 2.0**-22 * np.linalg.norm(done.x)


def test_clamped_rows_of_a_stiff_body(solve, gallery, blocks):
    """Elasticity in Pa, MatZeroRows with 1 on the diagonal, rigid-body modes attached: as with a modulus of 1."""
    free, modes = gallery.elasticity(12, clamped=False)
    n = free.shape[0]
    keep = np.ones(n)
    keep[: 2 * 13] = 0.0  # the left side
    x = 1e-3 * np.random.default_rng(4).standard_normal(n)
    iterations = []
    for modulus in (1.0, 1e11):
        whole = sp.csr_matrix(modulus * sp.diags_array(keep) @ free + sp.diags_array(1.0 - keep))
        whole.eliminate_zeros()
        done = solve(whole, np.asarray(whole @ x), matrix=blocks(whole, 2, modes), analog_tile_size=64)
        assert done.reason > 0
        assert np.linalg.norm(done.x - x) < 2.0**-23 * np.linalg.norm(x)
        iterations.append(done.iterations)
    assert iterations[1] <= iterations[0] + 2  # draws of noise


def test_a_null_space_goes_along(solve, gallery, PETSc):
    """Neumann, divided by uneven volumes: constants are annihilated, and the left null space is the volumes."""
    a = gallery.neumann(20, 19)
    d = scale(a.shape[0], 1.0)
    whole = sp.csr_matrix(d @ a)
    x = np.random.default_rng(2).standard_normal(a.shape[0])
    x -= x.mean()

    def attach(ksp):
        ksp.getOperators()[0].setNullSpace(PETSc.NullSpace().create(constant=True))

    done = solve(whole, np.asarray(whole @ x), analog_tile_size=64, prepare=attach)
    assert done.reason > 0
    assert np.linalg.norm(done.x - done.x.mean() - x) < 2.0**-23 * np.linalg.norm(x)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_the_same_without_petsc(gallery, side):
    a = gallery.poisson(24, 23)
    d = scale(a.shape[0])
    x = 1.0 + np.random.default_rng(1).random(a.shape[0])
    whole = sp.csr_matrix(d @ a if side == "rows" else a @ d)
    done = analogpde.solve(whole, whole @ x, chip=analogpde.load_chip("rram128").replace(tile_size=64))
    assert done.converged
    wanted = np.linalg.solve(whole.toarray(), whole @ x)
    assert np.linalg.norm(done.x - wanted) < 2.0**-23 * np.linalg.norm(wanted)
    assert WORDS[side] in str(done)
