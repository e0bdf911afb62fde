"""Time stepping of M u' + K u = F(t) with matrices constant in time: one system, set up once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from petsc4py import PETSc

from analogpde.errors import InvalidInput
from analogpde.fem.forms import Dirichlet
from analogpde.fem.system import LinearSystem

MakeSystem = Callable[[PETSc.Mat], LinearSystem]
Load = Callable[[float], PETSc.Vec]


MOST_STEPS = 10_000_000
"""Time steps at most: a second per step would take four months."""


def count_steps(t_end: float, dt: float) -> int:
    """Return how many equal steps of at most `dt` reach `t_end`, both in the same unit, dt as -dt has it.

    Raises:
        InvalidInput: more than `MOST_STEPS`.
    """
    if t_end > MOST_STEPS * dt:
        raise InvalidInput("-dt", dt, f"at least {t_end / MOST_STEPS:.3g}", f"That is {MOST_STEPS:.0e} steps to "
                           f"{t_end:g}.")
    return max(1, math.ceil(t_end / dt - 1e-9))


class Scheme(Protocol):
    """A one-step view of a time-stepping scheme."""

    def advance(self, u: PETSc.Vec, time: float) -> None:
        """Replace u at `time` (s) by u one step later. Collective."""
        ...


def _combination(base: PETSc.Mat, terms: list[tuple[float, PETSc.Mat]]) -> PETSc.Mat:
    """Return Σ c·A of matrices with one sparsity pattern."""
    total = base.duplicate(copy=False)
    total.zeroEntries()
    for factor, A in terms:
        total.axpy(factor, A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    return total


class Parabolic:
    """The parts of M u' + K u = F(t).

    Args:
        mass, stiffness: M and K without boundary conditions, of the same sparsity pattern.
        load: returns F at a time in s; the vector stays the callee's.
        dirichlet: prescribed values, or None.
    """

    def __init__(self, mass: PETSc.Mat, stiffness: PETSc.Mat, load: Load, dirichlet: Dirichlet | None = None) -> None:
        self.mass, self.stiffness, self.load, self.dirichlet = mass, stiffness, load, dirichlet

    def system(self, make: MakeSystem, shift: float, implicit: float) -> LinearSystem:
        """Return the system of the matrix shift·M + implicit·K."""
        A = _combination(self.stiffness, [(shift, self.mass), (implicit, self.stiffness)])
        if self.dirichlet is not None:
            self.dirichlet.constrain(A)
        return make(A)

    def solve(self, system: LinearSystem, b: PETSc.Vec, u: PETSc.Vec, time: float, shift: float,
              implicit: float) -> None:
        """Solve (shift·M + implicit·K) u = b with the values prescribed at `time`; u holds the guess. Collective."""
        if self.dirichlet is not None:
            self.dirichlet.lift(b, [(shift, self.mass), (implicit, self.stiffness)], time)
            self.dirichlet.put(u, time)
        system.solve(b, u)


class Theta:
    """The θ-scheme: M (u₁ − u₀)/dt + K (θ u₁ + (1−θ) u₀) = θ F₁ + (1−θ) F₀.

    Second order for θ = 1/2 (Crank–Nicolson), first order otherwise; stable for every dt if θ ≥ 1/2.

    Args:
        problem: the parts.
        dt: step in s.
        theta: θ, from 1/2 to 1.
        make: builds a LinearSystem from a matrix.
    """

    def __init__(self, problem: Parabolic, dt: float, theta: float, make: MakeSystem) -> None:
        self.problem, self.dt, self.theta = problem, dt, theta
        self.system = problem.system(make, 1 / dt, theta)
        self._b = problem.mass.createVecLeft()
        self._old: PETSc.Vec = self._b.duplicate()
        self._product: PETSc.Vec = self._b.duplicate()

    def advance(self, u: PETSc.Vec, time: float) -> None:
        """Replace u at `time` (s) by u one step later. Collective."""
        problem, b, theta, dt = self.problem, self._b, self.theta, self.dt
        u.copy(self._old)
        problem.mass.mult(self._old, b)
        b.scale(1 / dt)
        if theta < 1:
            problem.stiffness.mult(self._old, self._product)
            b.axpy(theta - 1, self._product)
            b.axpy(1 - theta, problem.load(time))
        b.axpy(theta, problem.load(time + dt))
        problem.solve(self.system, b, u, time + dt, 1 / dt, theta)


class BackwardDifference:
    """BDF2: M (3 u₂ − 4 u₁ + u₀)/(2 dt) + K u₂ = F₂, second order and L-stable.

    Its first step is a singly diagonally implicit Runge–Kutta step of order two whose matrix is BDF2's own (γ = 2/3),
    so that one matrix serves the whole run. Three stages make it L-stable: R(z) = (1 − z − z²/6)/(1 − 2z/3)³, with
    which a jump of the load at the start does not ring. (Order: Σb = 1, Σbc = 1/2; stiffly accurate, so R(∞) = 0;
    |R(iy)| ≤ 1 by comparing powers of y². See Hairer & Wanner, Solving Ordinary Differential Equations II, section
    IV.6.)

    Args:
        problem: the parts.
        dt: step in s.
        make: builds a LinearSystem from a matrix.
    """

    GAMMA = 2 / 3
    STAGES = ((2 / 3, ()), (0.0, (-2 / 3,)), (1.0, (-1 / 4, 7 / 12)))
    """Of the first step: time c and the coefficients a left of the diagonal, both in steps."""

    def __init__(self, problem: Parabolic, dt: float, make: MakeSystem) -> None:
        self.problem, self.dt = problem, dt
        self._shift = 1 / (self.GAMMA * dt)  # = 3/(2 dt)
        self.system = problem.system(make, self._shift, 1.0)
        self._b = problem.mass.createVecLeft()
        self._before: PETSc.Vec | None = None

    def advance(self, u: PETSc.Vec, time: float) -> None:
        """Replace u at `time` (s) by u one step later. Collective."""
        if self._before is None:
            self._before = u.copy()
            self._first(u, time)
            return
        now = u.copy()
        history = self._before
        u.axpby(-1.0, 2.0, history)  # the guess extrapolates in time
        # (4 u₁ − u₀)/(2 dt) = shift·(4 u₁ − u₀)/3
        history.scale(-1 / 3)
        history.axpy(4 / 3, now)
        self._stage(history, u, time + self.dt)
        history.destroy()
        self._before = now

    def _stage(self, base: PETSc.Vec, u: PETSc.Vec, time: float) -> None:
        """Solve (shift·M + K) u = shift·M base + F(time)."""
        self.problem.mass.mult(base, self._b)
        self._b.scale(self._shift)
        self._b.axpy(1.0, self.problem.load(time))
        self.problem.solve(self.system, self._b, u, time, self._shift, 1.0)

    def _first(self, u: PETSc.Vec, time: float) -> None:
        """Take the Runge–Kutta step."""
        start = u.copy()
        slopes: list[PETSc.Vec] = []
        for when, coefficients in self.STAGES:
            base = start.copy()
            for coefficient, slope in zip(coefficients, slopes, strict=True):
                base.axpy(self.dt * coefficient, slope)
            self._stage(base, u, time + when * self.dt)
            slope = u.copy()
            slope.axpy(-1.0, base)
            slope.scale(self._shift)
            slopes.append(slope)
            base.destroy()
        for vector in (start, *slopes):
            vector.destroy()
