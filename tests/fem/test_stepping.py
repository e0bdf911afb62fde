"""Rates of the time-stepping schemes on a system of ordinary differential equations, without a mesh."""

import math

import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from petsc4py import PETSc

from analogpde.fem.stepping import BackwardDifference, Parabolic, Theta
from analogpde.fem.system import LinearSystem
from analogpde.refine.record import SolveLog

RATES = (0.5, 3.0, 0.1, 8.0, 2.0, 1.0)  # 1/s


class Direct(LinearSystem):
    """A LinearSystem with a direct solver, whatever the options say."""

    def __init__(self, matrix):
        super().__init__(matrix, prefix="stepping_test_", log=SolveLog())
        self.made = 1


@pytest.fixture
def direct_options():
    options = PETSc.Options("stepping_test_")
    options["ksp_type"], options["pc_type"], options["pc_factor_mat_solver_type"] = "preonly", "lu", "mumps"
    yield
    for name in ("ksp_type", "pc_type", "pc_factor_mat_solver_type"):
        options.delValue(name)


def diagonal(comm, values):
    A = PETSc.Mat().createAIJ((len(values), len(values)), nnz=1, comm=comm)
    for row in range(*A.getOwnershipRange()):
        A[row, row] = values[row]
    A.assemble()
    return A


def march(comm, make_scheme, steps, jump=False):
    """Return the largest error at t = 1 of u' + λu = f for a smooth f, or for f = 1 from u = 0."""
    rates = np.array(RATES)
    mass, stiffness = diagonal(comm, np.full(len(rates), 2.0)), diagonal(comm, 2 * rates)
    u, load = mass.createVecLeft(), mass.createVecLeft()
    mine = rates[slice(*mass.getOwnershipRange())]

    def exact(t):
        return (1 - np.exp(-mine * t)) / mine if jump else np.cos(3 * t) + np.exp(-mine * t)

    def forcing(t):
        load.array[:] = 2.0 if jump else 2 * (mine * np.cos(3 * t) - 3 * np.sin(3 * t))
        return load

    u.array[:] = exact(0.0)
    dt = 1.0 / steps
    systems = []

    def make(A):
        systems.append(Direct(A))
        return systems[-1]

    scheme = make_scheme(Parabolic(mass, stiffness, forcing), dt, make)
    for step in range(steps):
        scheme.advance(u, step * dt)
    assert len(systems) == 1  # one matrix for the whole run
    return comm.allreduce(float(np.abs(u.array - exact(1.0)).max(initial=0.0)), max)


# scheme, expected order, largest error with 80 steps. Theory: θ-scheme order 1, and 2 at θ = 1/2; BDF2 order 2 with a
# starting step of order 2. Bounds: three times what was measured.
SCHEMES = [
    (lambda p, dt, make: Theta(p, dt, 1.0, make), 1, 8e-2),
    (lambda p, dt, make: Theta(p, dt, 0.5, make), 2, 1e-3),
    (lambda p, dt, make: BackwardDifference(p, dt, make), 2, 3e-3),
]


@pytest.mark.mpi
@pytest.mark.parametrize(("make_scheme", "order", "bound"), SCHEMES, ids=["euler", "crank-nicolson", "bdf2"])
def test_order_in_time(comm, direct_options, make_scheme, order, bound):
    coarse, fine = march(comm, make_scheme, 40), march(comm, make_scheme, 80)
    assert fine < bound
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_first_step_of_bdf2_does_not_ring_after_a_jump(comm, direct_options):
    # λ dt = 1600 in the stiffest component: an A-stable start of this order would overshoot by 80 %.
    global RATES
    saved, RATES = RATES, (1600.0,) * len(RATES)
    try:
        error = march(comm, lambda p, dt, make: BackwardDifference(p, dt, make), 1, jump=True)
    finally:
        RATES = saved
    assert error < 0.01 / 1600


def test_steps_that_would_take_for_ever_are_refused():
    from analogpde.errors import InvalidInput
    from analogpde.fem.stepping import count_steps

    assert [count_steps(1.0, dt) for dt in (2.0, 1.0, 0.3, 0.1, 1e-7)] == [1, 1, 4, 10, 10_000_000]
    with pytest.raises(InvalidInput, match="at least 1e-07"):
        count_steps(1.0, 1e-30)
