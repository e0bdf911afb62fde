"""The visible surface of a mesh with the values of a function on it, gathered on rank 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from dolfinx import fem, mesh
from mpi4py import MPI
from numpy.typing import NDArray

# Corners of the facets of Basix' tetrahedron, facet i opposite to corner i.
_TETRAHEDRON_FACETS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
# A P2 triangle as four plain ones; nodes 3, 4, 5 are the midpoints of edges (1, 2), (0, 2), (0, 1).
_P2_TRIANGLES = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2], [5, 3, 4]])


class Surface(NamedTuple):
    """Triangles in space with a value at every corner.

    Args:
        corners: coordinates (count, 3, 3) in m: triangle, corner, axis.
        values: (count, 3).
    """

    corners: NDArray
    values: NDArray


def extract(function: fem.Function, keep: Callable[[NDArray], NDArray] | None = None) -> Surface | None:
    """Return the surface on rank 0 and None elsewhere. Collective.

    Of a mesh of triangles it is all cells; of tetrahedra it is the boundary of the cells that are kept.

    Args:
        function: a scalar Lagrange function on a mesh of triangles or tetrahedra.
        keep: maps midpoints (count, 3) of cells to whether the cell is shown; None: all.
    """
    domain = function.function_space.mesh
    kind = domain.topology.cell_type
    if kind not in (mesh.CellType.triangle, mesh.CellType.tetrahedron):
        raise ValueError(f"no picture of a mesh of {kind.name}s")
    degree = domain.geometry.cmaps[0].degree
    nodal = fem.Function(fem.functionspace(domain, ("Lagrange", degree)))
    nodal.interpolate(function)
    # One value per node of the geometry, so that both have the same local numbering in a cell.
    geometry, unknowns = domain.geometry.dofmaps[0], nodal.function_space.dofmap.list
    cells = domain.topology.index_map(domain.topology.dim)
    everything = np.arange(cells.size_local + cells.num_ghosts, dtype=np.int32)
    shown = np.ones(len(everything), dtype=bool)
    if keep is not None and len(everything):
        shown = np.asarray(keep(mesh.compute_midpoints(domain, domain.topology.dim, everything)), dtype=bool)
    owned = np.flatnonzero(shown[: cells.size_local])
    if kind == mesh.CellType.triangle:
        pattern = _P2_TRIANGLES if degree == 2 else np.array([[0, 1, 2]])
        owners = np.repeat(owned, len(pattern))
        local = np.tile(pattern, (len(owned), 1))
    else:
        owners, local = _outer_facets(domain, shown, owned)
    corners = domain.geometry.x[geometry[owners[:, None], local]]
    values = nodal.x.array[unknowns[owners[:, None], local]]
    return _gather(domain.comm, corners, values)


def _outer_facets(domain: mesh.Mesh, shown: NDArray, owned: NDArray) -> tuple[NDArray, NDArray]:
    """Return cell and local corners (count, 3) of every facet between shown cells and hidden ones or nothing."""
    domain.topology.create_entities(2)
    domain.topology.create_connectivity(3, 2)
    facets = domain.topology.connectivity(3, 2).array.reshape(-1, 4)
    # Cells of other ranks that share a facet are ghosts here, so the count is right on every rank.
    neighbours = np.bincount(facets[shown].ravel(), minlength=int(facets.max(initial=0)) + 1)
    which, facet = np.nonzero(neighbours[facets[owned]] == 1)
    return owned[which], _TETRAHEDRON_FACETS[facet]


def _gather(comm: MPI.Comm, corners: NDArray, values: NDArray) -> Surface | None:
    parts = comm.gather((corners, values))
    if parts is None:
        return None
    return Surface(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
