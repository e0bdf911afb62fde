"""Sparse PDE matrices, and the part of one that a rank sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp

# Nothing of analogpde is imported before it is used: pytest reads this file before the kernel cache has its place.
if TYPE_CHECKING:
    from analogpde.patches.grow import LocalMatrix, Patches


def line(n: int) -> sp.csr_matrix:
    return sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)).tocsr()


def plane(n: int, m: int, x: float = 1.0, y: float = 1.0) -> sp.csr_matrix:
    """Five points on n rows of m; weight x within a row, y between rows."""
    return (x * sp.kron(sp.eye(n), line(m)) + y * sp.kron(line(n), sp.eye(m))).tocsr()


def space(n: int) -> sp.csr_matrix:
    return (sp.kron(sp.eye(n), plane(n, n)) + sp.kron(line(n), sp.eye(n * n))).tocsr()


def lognormal(n: int) -> sp.csr_matrix:
    matrix = plane(n, n)
    k = np.exp(2 * np.random.default_rng(2).normal(size=n * n))
    edges = sp.triu(matrix, 1).tocoo()
    weight = 2 / (1 / k[edges.row] + 1 / k[edges.col])
    off = sp.coo_matrix((-weight, (edges.row, edges.col)), shape=matrix.shape)
    off = off + off.T
    return (off + sp.diags(-np.asarray(off.sum(axis=1)).ravel() + 0.1 * k)).tocsr()


def upwind(n: int) -> sp.csr_matrix:
    wind = sp.diags([1.0, -1.0], [0, -1], shape=(n, n))
    return (plane(n, n) + 5 * sp.kron(sp.eye(n), wind)).tocsr()


def dirichlet(n: int) -> sp.csr_matrix:
    """A plane whose border rows are replaced by 1 on the diagonal and zeros kept in the pattern, as FEM codes do."""
    matrix = plane(n, n).tocoo()
    border = np.zeros((n, n), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    border = border.ravel()
    value = np.where(border[matrix.row] | border[matrix.col], 0.0, matrix.data)
    value = np.where((matrix.row == matrix.col) & border[matrix.row], 1.0, value)
    return sp.csr_matrix((value, (matrix.row, matrix.col)), shape=matrix.shape)


def components(count: int) -> sp.csr_matrix:
    return sp.block_diag([plane(5, 5)] * count).tocsr()


def dense(n: int) -> sp.csr_matrix:
    return sp.csr_matrix(np.eye(n) * n - np.ones((n, n)) * 0.5)


MATRICES = {
    "line": line(200), "plane": plane(23, 19), "space": space(8), "lognormal": lognormal(18), "upwind": upwind(17),
    "anisotropic": plane(20, 20, 1.0, 0.001), "dirichlet": dirichlet(16), "components": components(9),
    "dense": dense(90), "identity": sp.eye(70).tocsr(), "one": sp.csr_matrix([[3.0]]),
    "negative": (-plane(12, 12)).tocsr(),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "matrix" in metafunc.fixturenames:
        metafunc.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())


class Tools:
    """What patch tests make their objects with."""

    line = staticmethod(line)
    plane = staticmethod(plane)
    space = staticmethod(space)
    dirichlet = staticmethod(dirichlet)
    upwind = staticmethod(upwind)

    @staticmethod
    def seen(matrix: sp.csr_matrix, begin: int = 0, end: int | None = None, layers: int = 2) -> tuple[LocalMatrix, Any]:
        """What the rank that owns rows begin…end−1 sees: layers of neighbours; and their global numbers."""
        from analogpde.patches.grow import LocalMatrix

        end = matrix.shape[0] if end is None else end
        pattern = sp.csr_matrix((np.ones(len(matrix.indices)), matrix.indices, matrix.indptr), shape=matrix.shape)
        reach = np.zeros(matrix.shape[0])
        reach[begin:end] = 1
        for _ in range(layers):
            reach = reach + pattern @ reach
        rows = np.flatnonzero(reach)
        part = matrix[rows][:, rows].tocsr()
        return LocalMatrix(part.indptr.astype(np.int64), part.indices.astype(np.int64), part.data.astype(float),
                           int(np.searchsorted(rows, begin)), end - begin), rows

    @classmethod
    def patches(cls, matrix: sp.csr_matrix, tile: int, **how: Any) -> tuple[LocalMatrix, Patches]:
        """Patches of the whole matrix on one rank."""
        from analogpde.patches.grow import make_patches

        local, _ = cls.seen(matrix)
        return local, make_patches(local, tile, **{"core": None, "overlap": 2, "threshold": 0.1, **how})

    @staticmethod
    def members(patches: Patches, k: int) -> tuple[list[int], list[int]]:
        """Core and added unknowns of patch k."""
        index = patches.index[k, : patches.size[k]].tolist()
        return index[: patches.core[k]], index[patches.core[k]:]


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
