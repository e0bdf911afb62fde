"""Linear systems in plain NumPy, as the loop wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analogpde.refine.loop import Progress, make_accelerator, refine
from analogpde.refine.status import Status

Matrix = np.ndarray


class System:
    """A x = b with a preconditioner given as a matrix or as a function of the residual."""

    def __init__(self, matrix: Matrix, b: Matrix, correct: Matrix | Callable[[Matrix], Matrix]) -> None:
        self.matrix, self.b = matrix, b
        self._correct = correct if callable(correct) else lambda r: correct @ r
        self.corrected: list[Matrix] = []
        self.slow: Matrix | None = None  # a vector that the matrix all but annihilates, if it is known

    def multiply(self, x: Matrix) -> Matrix:
        return self.matrix @ x

    def residual(self, x: Matrix) -> Matrix:
        return self.b - self.matrix @ x

    def machine_residual(self, x: Matrix, true: Matrix) -> Matrix:
        return true

    def correct(self, residual: Matrix) -> Matrix:
        self.corrected.append(residual.copy())
        return self._correct(residual)

    def slow_error(self, residual: Matrix) -> float:
        if self.slow is None:
            return 0.0
        return float(np.linalg.norm(self.slow) * abs(self.slow @ residual / (self.slow @ self.matrix @ self.slow)))

    def determined(self, x: Matrix) -> Matrix:
        return x

    def sum(self, values: Matrix) -> Matrix:
        return values


def solve(system: Any, accelerator: str = "none", *, rtol: float = 1e-12, steps: int | None = None, restart: int = 30,
          start: Matrix | None = None, **how: Any) -> tuple[Status, Matrix, list[Progress], list[Matrix]]:
    """Refine until the residual has fallen by rtol, or for a number of steps; return also every iterate."""
    x = np.zeros(len(system.b)) if start is None else start.copy()
    history: list[Progress] = []
    iterates: list[Matrix] = []
    goal = rtol * float(np.linalg.norm(system.b))

    def test(progress: Progress) -> Status | None:
        history.append(progress)
        iterates.append(x.copy())
        if steps is not None:
            return Status.CONVERGED_ITS if progress.iteration >= steps else None
        return Status.CONVERGED_RTOL if progress.residual_norm <= goal else None

    status = refine(system, x, make_accelerator(accelerator, len(x), restart), test=test, **how)
    return status, x, history, iterates


def spd(n: int, condition: float, seed: int = 0) -> Matrix:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = basis @ np.diag(np.geomspace(1 / condition, 1, n)) @ basis.T
    return 0.5 * (matrix + matrix.T)


def poisson(n: int) -> Matrix:
    line = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return np.kron(line, np.eye(n)) + np.kron(np.eye(n), line)


def unsymmetric(n: int, seed: int = 0) -> Matrix:
    return 2 * np.sqrt(n) * np.eye(n) + np.random.default_rng(seed).normal(size=(n, n))


class Tools:
    """What refinement tests make their objects with."""

    System = System
    solve = staticmethod(solve)
    spd = staticmethod(spd)
    poisson = staticmethod(poisson)
    unsymmetric = staticmethod(unsymmetric)

    @staticmethod
    def right_hand_side(n: int, seed: int = 1) -> Matrix:
        return np.random.default_rng(seed).normal(size=n)

    @staticmethod
    def inexact(matrix: Matrix, error: float, seed: int = 2) -> Matrix:
        """An inverse with a random relative error: ‖I − A M‖ = error exactly."""
        perturbation = np.random.default_rng(seed).normal(size=matrix.shape)
        perturbation *= error / np.linalg.norm(perturbation, 2)
        return np.linalg.inv(matrix) @ (np.eye(len(matrix)) - perturbation)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
