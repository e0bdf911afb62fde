"""The closed sphere as an icosahedral mesh of curved (isoparametric P2) triangles."""

from __future__ import annotations

from typing import Any

import basix.ufl
import numpy as np
from dolfinx import mesh
from mpi4py import MPI
from numpy.typing import NDArray

MAX_LEVEL = 9
"""Finest level accepted: 5.2 million cells, 10.5 million P2 unknowns."""

# Faces of the icosahedron below, each with its corners anticlockwise seen from outside.
_FACES = np.array(
    [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6],
     [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7],
     [9, 8, 1]]
)


def _icosahedron() -> tuple[NDArray, NDArray]:
    """Return the corners (12, 3), on the unit sphere with one at each pole, and the faces (20, 3)."""
    t = (1 + 5**0.5) / 2
    corners = np.array(
        [[-1, t, 0], [1, t, 0], [-1, -t, 0], [1, -t, 0], [0, -1, t], [0, 1, t],
         [0, -1, -t], [0, 1, -t], [t, 0, -1], [t, 0, 1], [-t, 0, -1], [-t, 0, 1]]
    )
    corners /= np.linalg.norm(corners, axis=1)[:, None]
    # Latitude circles then meet the mesh with its five-fold symmetry.
    z = corners[0]
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    return corners @ np.array([x, np.cross(z, x), z]).T, _FACES


def _edge_midpoints(points: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Return `points` with the edges' midpoints, pushed to the sphere, added, and the midpoints (faces, 3).

    The midpoints of a face (0, 1, 2) come in Basix' order of its edges: (1, 2), (0, 2), (0, 1).
    """
    ends = np.sort(np.stack([faces[:, [1, 2]], faces[:, [0, 2]], faces[:, [0, 1]]], axis=1).reshape(-1, 2), axis=1)
    edges, numbers = np.unique(ends, axis=0, return_inverse=True)
    middle = points[edges].sum(axis=1)
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    return np.vstack([points, middle]), len(points) + numbers.reshape(-1, 3)


def icosphere(level: int) -> tuple[NDArray, NDArray]:
    """Return points (count, 3) on the unit sphere and triangles (20·4^level, 3), anticlockwise from outside."""
    points, faces = _icosahedron()
    for _ in range(level):
        points, faces = _refined(points, faces)
    return points, faces


def _refined(points: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Return points and faces of one more subdivision; the parts of face i of n are i, i + n, i + 2n and i + 3n."""
    points, middle = _edge_midpoints(points, faces)
    (a, b, c), (bc, ac, ab) = faces.T, middle.T
    return points, np.vstack([np.c_[a, ab, ac], np.c_[ab, b, bc], np.c_[ac, bc, c], np.c_[ab, bc, ac]])


def curved_icosphere(level: int) -> tuple[NDArray, NDArray]:
    """Return the nodes on the unit sphere and the curved P2 triangles (20·4^level, 6), corners first."""
    points, faces = icosphere(level)
    points, middle = _edge_midpoints(points, faces)
    return points, np.hstack([faces, middle])


def smallest_height(level: int) -> float:
    """Return the smallest height of a triangle of the icosphere on the unit sphere."""
    fine = min(level, 5)  # from there on a subdivision halves it, within 1e-3
    points, faces = icosphere(fine)
    a, b, c = (points[faces[:, i]] for i in range(3))
    longest = np.stack([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))]).max(axis=0)
    return float((np.linalg.norm(np.cross(b - a, c - a), axis=1) / longest).min()) / 2 ** (level - fine)


def locate(level: int, directions: NDArray) -> tuple[NDArray, NDArray]:
    """Return the triangle of the icosphere that each direction passes through.

    Args:
        level: number of subdivisions.
        directions: unit vectors (count, 3).

    Returns:
        Numbers of the triangles (count,) and barycentric coordinates (count, 3) in the flat triangles.
    """
    points, faces = _icosahedron()
    rows = np.arange(len(directions))
    weights = np.einsum("fcx,px->pfc", np.linalg.inv(np.swapaxes(points[faces], 1, 2)), directions)
    which = np.argmax(weights.min(axis=2), axis=1)
    weights = weights[rows, which]
    for _ in range(level):
        parts = which[:, None] + len(faces) * np.arange(4)  # of triangle i, see `_refined`
        points, faces = _refined(points, faces)
        corners = points[faces[parts]]  # (count, part, corner, axis)
        weights = np.linalg.solve(np.swapaxes(corners, 2, 3), directions[:, None, :, None])[..., 0]
        best = np.argmax(weights.min(axis=2), axis=1)
        which, weights = parts[rows, best], weights[rows, best]
    return which, weights / weights.sum(axis=1, keepdims=True)


def create_sphere(comm: MPI.Comm, level: int, radius: float = 1.0) -> mesh.Mesh:
    """Create the sphere of 20·4^level curved triangles. Collective.

    The triangles are P2: on flat ones the solution of a P2 method is some 300 times less accurate. They are
    oriented consistently, so `ufl.CellNormal` points outward everywhere.

    Args:
        comm: its ranks share the mesh.
        level: number of subdivisions of the icosahedron; an edge of it has 2^level cells.
        radius: radius in metres.
    """
    if comm.rank == 0:
        points, cells = curved_icosphere(level)
        points, cells = radius * points, cells.astype(np.int64)
    else:
        points, cells = np.empty((0, 3)), np.empty((0, 6), dtype=np.int64)
    element: Any = basix.ufl.element("Lagrange", "triangle", 2, shape=(3,), dtype=np.float64)
    return mesh.create_mesh(comm, cells, element, points)
