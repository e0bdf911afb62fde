import numpy as np
import pytest
import scipy.linalg

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from petsc4py import PETSc

from analogpde.errors import AnalogError, InvalidInput, cause
from analogpde.fem import eigen
from analogpde.fem.system import LinearSystem, NotConverged
from analogpde.refine.record import SolveLog

N, COUNT = 40, 4


@pytest.fixture
def pencil(comm):
    """K and M of linear elements on a line, the matrices as arrays, and this rank's part of a first block."""
    K = 2 * np.eye(N) - np.eye(N, k=1) - np.eye(N, k=-1)
    M = (4 * np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-1)) / 6
    made = []
    for dense in (K, M):
        A = PETSc.Mat().createAIJ((N, N), comm=comm)
        A.setUp()
        for i in range(*A.getOwnershipRange()):
            for j in np.flatnonzero(dense[i]):
                A.setValue(i, int(j), dense[i, j])
        A.assemble()
        A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        made.append(A)
    first, last = made[0].getOwnershipRange()
    points = np.zeros((last - first, 3))
    points[:, 0] = np.arange(first, last) / N
    start = eigen.start_block(points, np.ones(last - first, dtype=bool), COUNT + 2)
    return made[0], made[1], scipy.linalg.eigh(K, M)[0], start


def direct(S):
    options = PETSc.Options()
    for name, value in (("ksp_type", "preonly"), ("pc_type", "lu"), ("pc_factor_mat_solver_type", "mumps")):
        options.setValue(f"eigen_{name}", value)
    return LinearSystem(S, prefix="eigen_", log=SolveLog())


def shifted(K, M, shift):
    S = K.copy()
    S.axpy(-shift, M)
    S.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    return S


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["shift_invert", "inverse_iteration"])
def test_lowest_eigenpairs(pencil, comm, method):
    K, M, exact, start = pencil
    shift = -0.01
    S = shifted(K, M, shift)
    system = direct(S)
    if method == "shift_invert":
        pytest.importorskip("slepc4py.SLEPc", exc_type=ImportError)
        pairs = eigen.shift_invert(system, M, start, COUNT, shift)
    else:
        pairs = eigen.inverse_iteration(system.solve, S, M, start, COUNT, shift)
    # Inverse iteration ends when a step changes them by 1e-8.
    assert pairs.values + shift == pytest.approx(exact[:COUNT], rel=1e-8)
    assert system.log.solves["eigen_"].count > 0
    tools = eigen._Pencil(S, M)
    gram = tools.gram(pairs.vectors, tools.product(M, pairs.vectors))
    assert gram == pytest.approx(np.eye(COUNT), abs=1e-9)
    system.destroy()


@pytest.mark.mpi
def test_a_shift_above_the_lowest_level_is_refused(pencil):
    K, M, exact, start = pencil
    shift = float(exact[0] + exact[1]) / 2
    S = shifted(K, M, shift)
    system = direct(S)
    with pytest.raises(InvalidInput, match="below the lowest level"):
        eigen.inverse_iteration(system.solve, S, M, start, COUNT, shift)
    pytest.importorskip("slepc4py.SLEPc", exc_type=ImportError)
    with pytest.raises(InvalidInput, match="below the lowest level"):
        eigen.shift_invert(system, M, start, COUNT, shift)


@pytest.mark.mpi
def test_a_shift_inside_the_spectrum_is_refused_by_the_tiles(pencil):
    K, M, exact, start = pencil
    shift = 6.0  # half of the spectrum, 0 to 12, lies below: a tile holds no such block
    assert exact[0] < shift < exact[-1]
    system = LinearSystem(shifted(K, M, shift), prefix="deep_", log=SolveLog())
    b, x = K.createVecs()
    b.set(1.0)
    with pytest.raises((NotConverged, PETSc.Error)) as refusal:
        system.solve(b, x)
    assert isinstance(refusal.value, NotConverged) or cause(refusal.value) is not None
    pytest.importorskip("slepc4py.SLEPc", exc_type=ImportError)
    with pytest.raises(AnalogError):
        eigen.shift_invert(system, M, start, COUNT, shift)


@pytest.mark.mpi
def test_inverse_iteration_gives_up_with_a_reason(pencil):
    K, M, _, start = pencil
    S = shifted(K, M, -10.0)
    system = direct(S)
    with pytest.raises(NotConverged, match="-shift nearer"):
        eigen.inverse_iteration(system.solve, S, M, start, COUNT, -10.0, max_steps=2)
