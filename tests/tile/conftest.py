"""Blocks as PDEs make them, one catalogue for all tile tests; chips; packing of blocks of different sizes.

A test with an argument `family` runs once for every block of the catalogue; `spd_family` names the symmetric
positive definite ones alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# Nothing of analogpde is imported before it is used: pytest reads this file before the kernel cache has its place.
if TYPE_CHECKING:
    from analogpde.chip import Chip
    from analogpde.cost import Ledger
    from analogpde.tile.blocks import Blocks
    from analogpde.tile.programming import Conductances

UNIT_ROUNDOFF = 2.0**-24  # of float32, in which tiles are inverted and applied


def grid(n: int, m: int, coefficient: Any = None, x: float = 1.0, y: float = 1.0) -> np.ndarray:
    """−∇·k∇ with Dirichlet border, five points, harmonic means of k (shape n+2, m+2); factors x, y per direction."""
    k = np.ones((n + 2, m + 2)) if coefficient is None else coefficient
    matrix = np.zeros((n * m, n * m))
    for i in range(n):
        for j in range(m):
            for a, b, weight in ((0, 1, x), (0, -1, x), (1, 0, y), (-1, 0, y)):
                c = 2 * weight / (1 / k[i + 1, j + 1] + 1 / k[i + 1 + a, j + 1 + b])
                matrix[i * m + j, i * m + j] += c
                if 0 <= i + a < n and 0 <= j + b < m:
                    matrix[i * m + j, (i + a) * m + j + b] -= c
    return matrix


def chain(n: int) -> np.ndarray:
    """−u″ with Dirichlet ends: 2 and −1."""
    return grid(1, n, y=0.0)


def wind(n: int, peclet: float, upwind: bool) -> np.ndarray:
    """Poisson and a diagonal wind; `peclet` is v h/k of a cell."""
    matrix = grid(n, n)
    for row in range(n * n):
        for step, inside in ((1, row % n > 0), (n, row >= n)):
            if upwind:
                matrix[row, row] += peclet
                if inside:
                    matrix[row, row - step] -= peclet
            else:
                if inside:
                    matrix[row, row - step] -= peclet / 2
                ahead = row % n < n - 1 if step == 1 else row < n * (n - 1)
                if ahead:
                    matrix[row, row + step] += peclet / 2
    return matrix


def quadratic(cells: int) -> np.ndarray:
    """Poisson with biquadratic elements, Dirichlet border: up to 25 entries a row, some positive off the diagonal."""
    n = 2 * cells + 1
    stiffness, mass = np.zeros((n, n)), np.zeros((n, n))
    for c in range(cells):
        part = slice(2 * c, 2 * c + 3)
        stiffness[part, part] += np.array([[7, -8, 1], [-8, 16, -8], [1, -8, 7]]) / 3
        mass[part, part] += np.array([[4, 2, -1], [2, 16, 2], [-1, 2, 4]]) / 30
    k, m = stiffness[1:-1, 1:-1], mass[1:-1, 1:-1]
    return np.kron(k, m) + np.kron(m, k)


def two_displacements(n: int) -> np.ndarray:
    """Two unknowns a node, coupled by a mixed derivative: the pattern of plane elasticity."""
    nodes = grid(n, n)
    mixed = np.zeros_like(nodes)
    for i in range(n):
        for j in range(n):
            for a, b, s in ((1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)):
                if 0 <= i + a < n and 0 <= j + b < n:
                    mixed[i * n + j, (i + a) * n + j + b] = -0.25 * s
    return np.block([[nodes, mixed], [mixed, nodes]])


def lognormal(n: int, spread: float) -> np.ndarray:
    return grid(n, n, np.exp(spread * np.random.default_rng(1).normal(size=(n + 2, n + 2))))


def random_spd(n: int, condition: float, seed: int) -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = basis @ np.diag(np.geomspace(1, condition, n)) @ basis.T
    return 0.5 * (matrix + matrix.T)


def checkerboard(n: int) -> np.ndarray:
    """Poisson in the basis that alternates in sign: no M-matrix, and a slow mode that alternates too."""
    signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n)).ravel()
    return grid(n, n) * signs[:, None] * signs


SPD: dict[str, np.ndarray] = {
    "poisson": grid(8, 8),
    "chain": chain(64),
    "lognormal": lognormal(8, 2.0),
    "inclusion": grid(8, 8, np.where(np.add.outer(np.arange(10), np.arange(10)) % 7 < 3, 1e6, 1.0)),
    "anisotropic": grid(8, 8, x=1.0, y=0.01),
    "quadratic": quadratic(4),
    "elasticity": two_displacements(5),
    "biharmonic": grid(7, 7) @ grid(7, 7),
    "checkerboard": checkerboard(7),
    "random": random_spd(40, 30.0, seed=3),
    "single": np.array([[2.5]]),
    "units": grid(6, 6) * np.outer(np.logspace(-8, 6, 36), np.logspace(-8, 6, 36)),
}
UNSYMMETRIC: dict[str, np.ndarray] = {
    "upwind 1": wind(8, 1.0, upwind=True),
    "upwind 100": wind(8, 100.0, upwind=True),
    "central": wind(8, 1.5, upwind=False),
}
FAMILIES = {**SPD, **UNSYMMETRIC, "negative": -lognormal(7, 1.0)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, catalogue in (("family", FAMILIES), ("spd_family", SPD)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, catalogue.values(), ids=catalogue.keys())


def pack(matrices: list[np.ndarray], first_tile: int = 0) -> Blocks:
    """Blocks of matrices of any sizes, side by side in one batch."""
    from analogpde.tile.blocks import Blocks

    row, col, value, lengths = [], [], [], []
    for matrix in matrices:
        keep = (matrix != 0) | np.eye(len(matrix), dtype=bool)
        i, j = np.nonzero(keep)
        row.append(i)
        col.append(j)
        value.append(matrix[keep])
        lengths.append(len(i))
    sizes = [len(matrix) for matrix in matrices]
    return Blocks(np.array(sizes, np.int32), np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
                  np.concatenate(row).astype(np.int32), np.concatenate(col).astype(np.int32), np.concatenate(value),
                  np.arange(first_tile, first_tile + len(matrices)), max(sizes))


class Tools:
    """What tile tests make their objects with."""

    unit_roundoff = UNIT_ROUNDOFF
    grid = staticmethod(grid)
    chain = staticmethod(chain)
    lognormal = staticmethod(lognormal)
    random_spd = staticmethod(random_spd)
    wind = staticmethod(wind)
    quadratic = staticmethod(quadratic)
    pack = staticmethod(pack)

    @staticmethod
    def chip(tile_size: int = 128, bits: int | None = None, programming: float | None = None,
             read: float | None = None, dac: int | None = None, adc: int | None = None) -> Chip:
        """A chip; ideal in all that is not said."""
        from analogpde.chip import Cell, Chip, Converter

        return Chip("test", tile_size=tile_size, cell=Cell(bits=bits, programming_error=programming, read_noise=read),
                    dac=Converter(bits=dac), adc=Converter(bits=adc))

    @staticmethod
    def counts(ledger: Ledger) -> Ledger:
        """Shots, lines and cells of an application, without what it asks of amplifiers and time."""
        return replace(ledger, inv_products=0, amplifier_settlings=0.0, rounds=0, round_settlings=0.0)

    @staticmethod
    def scaled(matrix: np.ndarray) -> np.ndarray:
        """The matrix with its diagonal scaled to one, from the definition."""
        root = np.sqrt(np.abs(np.diag(matrix)))
        return matrix / root[:, None] / root * np.sign(matrix[0, 0])

    @staticmethod
    def programmed(blocks: Blocks, chip: Chip, **how: Any) -> tuple[Blocks, Conductances]:
        """Scale and program; return the scaled blocks and the conductances."""
        from analogpde.tile.programming import program, scale_blocks

        scaled, scale, sign = scale_blocks(blocks)
        return scaled, program(scaled, scale, sign, chip, **how)


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()
