"""Semi-implicit time stepping of waves and advection with one evaluation and one constant matrix a step.

The scheme is AM2*–AX2* of Durran and Blossey, *Implicit–explicit multistep methods for fast-wave–slow-wave problems*,
Monthly Weather Review 140 (2012) 1307–1325: for y' = E(y) + I(y) with E explicit and I implicit,

    y₁ = y₀ + dt (7/4 E₀ − E₋₁ + 1/4 E₋₂) + dt (3/4 I₁ + 1/4 I₋₁)

of second order. It is the member of its family that damps fast waves and yet is stable for advection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXPLICIT = (7 / 4, -1.0, 1 / 4)
"""Weights of E at the times 0, −1, −2."""

IMPLICIT = (3 / 4, 0.0, 1 / 4)
"""Weights of I at the times 1, 0, −1."""

STABLE = 0.55
"""Largest advective frequency times dt for which no wave grows, whatever its gravity-wave frequency, where the depth
is between 0.3 and 1.2 times the reference depth; `amplification` shows it."""

VISCOUS = 1 / 3
"""Largest rate of an explicit damping times dt: half of what is stable without advection, |1 + λ (7/4 − …)| ≤ 1 for
λ ≥ −2/3."""

ADVECTION = {1: math.sqrt(3.0), 2: 3 * math.sqrt(2.0)}
"""Largest frequency of u ∂/∂x in units of u/d, d the length of a cell, by degree of the elements (Bloch waves on the
line; Galerkin with the consistent mass matrix)."""

DIFFUSION = {1: 2 * math.sqrt(3.0), 2: 2 * math.sqrt(15.0)}
"""Root of the largest eigenvalue of −∂²/∂x² in units of 1/d, likewise: c times it is the fastest gravity wave."""


def amplification(advective: float, gravity: float, ratio: float, *, explicit: Sequence[float] = EXPLICIT,
                  implicit: Sequence[float] = IMPLICIT) -> float:
    """Return the largest amplification factor of one step, by von Neumann's analysis.

    The waves are those of the linear shallow-water equations on a current, one wave number k:
    h' = i k u h − h₀ D and D' = i k u D + k² g h. The mean depth h₀ differs from the reference depth H of the implicit
    part; the rest, −(h₀ − H) D, is explicit.

    Args:
        advective: k u dt.
        gravity: k √(g H) dt.
        ratio: h₀/H.
        explicit, implicit: weights of the scheme, newest first.
    """
    wave = np.array([[0, -gravity], [gravity, 0]], dtype=complex)
    rest = np.array([[0, -(ratio - 1) * gravity], [0, 0]], dtype=complex)
    slow = 1j * advective * np.eye(2) + rest
    return float(np.abs(np.linalg.eigvals(companion(slow, wave, explicit, implicit))).max())


def companion(slow: NDArray, fast: NDArray, explicit: Sequence[float] = EXPLICIT,
              implicit: Sequence[float] = IMPLICIT) -> NDArray:
    """Return the matrix of one step of y' = (slow + fast) y on the states of the last three times.

    Args:
        slow, fast: matrices (n, n) of the explicit and the implicit part, times dt.
        explicit, implicit: weights of the scheme, newest first.
    """
    n, unit = len(slow), np.eye(len(slow))
    solve = np.linalg.inv(unit - implicit[0] * fast)
    step = np.zeros((3 * n, 3 * n), dtype=np.result_type(slow, fast))
    for age in range(3):
        old = implicit[age + 1] if age + 1 < len(implicit) else 0.0
        new = explicit[age] if age < len(explicit) else 0.0
        step[:n, age * n:(age + 1) * n] = solve @ ((age == 0) * unit + new * slow + old * fast)
    step[n:, :-n] = np.eye(2 * n)
    return step


def scan(advective: Sequence[float], gravity: Sequence[float], ratios: Sequence[float]) -> NDArray:
    """Return the amplification (len(ratios), len(advective)), the largest over `gravity`.

    Args:
        advective, gravity, ratios: arguments of `amplification`.
    """
    return np.array([[max(amplification(a, w, r) for w in gravity) for a in advective] for r in ratios])


ELEMENTS = {1: (np.array([[2, 1], [1, 2]]) / 6, np.array([[-1, 1], [-1, 1]]) / 2, np.array([[1.0, -1], [-1, 1]])),
            2: (np.array([[4, 2, -1], [2, 16, 2], [-1, 2, 4]]) / 30,
                np.array([[-3, 4, -1], [-4, 0, 4], [1, -4, 3]]) / 6,
                np.array([[7, -8, 1], [-8, 16, -8], [1, -8, 7]]) / 3)}
"""(φᵢ, φⱼ), (φᵢ, φⱼ') and (φᵢ', φⱼ') of a cell of length 1, by degree."""


def upwinded(advective: float, upwind: float, degree: int) -> float:
    """Return the largest amplification of Bloch waves of u ∂/∂x on the line, upwinded by orthogonal subscales.

    These are damped by M⁻¹ (K − Cᵀ M⁻¹ C) τ u², of eigenvalues up to that of `DIFFUSION`: explicitly, so that too much
    of it is unstable.

    Args:
        advective: largest frequency of u ∂/∂x times dt, as in `ADVECTION`.
        upwind: τ in units of d/(2 p |u|), d the length of a cell and p the degree.
        degree: 1 or 2.
    """
    largest, cells = 0.0, advective / ADVECTION[degree]  # cells that the current passes in dt
    for phase in np.linspace(0, np.pi, 25):
        ends = np.zeros((degree + 1, degree), complex)  # the last node of a cell is the first of the next
        ends[:degree], ends[degree, 0] = np.eye(degree), np.exp(1j * phase)
        mass, slope, stiffness = (ends.conj().T @ part @ ends for part in ELEMENTS[degree])
        unresolved = stiffness - slope.conj().T @ np.linalg.solve(mass, slope)
        slow = -cells * np.linalg.solve(mass, slope + upwind / (2 * degree) * unresolved)
        largest = max(largest, np.abs(np.linalg.eigvals(companion(slow, np.zeros_like(slow)))).max())
    return float(largest)


def default_step(speed: float, size: float, degree: int, total: float, rotation: float = 0.0) -> float:
    """Return the time step in s: advection and rotation at 80 % of `STABLE` at most, whole steps in `total`.

    Args:
        speed: largest speed expected, m/s.
        size: height of the flattest cell, m.
        degree: of the elements.
        total: simulated time, s.
        rotation: largest Coriolis parameter, 1/s. Inertial waves are explicit, too.
    """
    largest = 0.8 * STABLE / max(ADVECTION[degree] * max(speed, 1e-3) / size, abs(rotation))
    return total / math.ceil(total / largest)
