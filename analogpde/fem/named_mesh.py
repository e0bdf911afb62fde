"""Meshes from XDMF files, with the names of their physical groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as xml

import ufl
from dolfinx import io
from dolfinx.mesh import Mesh, MeshTags
from mpi4py import MPI

from analogpde.errors import InvalidInput, did_you_mean
from analogpde.fem.arguments import on_root

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # the first eight bytes of every HDF5 file (HDF5 file format 3.0, section II.A)


@dataclass(frozen=True)
class NamedMesh:
    """A mesh and its named groups.

    Args:
        mesh: the mesh.
        cells, facets: group numbers of cells and facets; None if the file marks none.
        volumes, surfaces: group number by name.
        source: the file, for messages.
    """

    mesh: Mesh
    cells: MeshTags | None = None
    facets: MeshTags | None = None
    volumes: dict[str, int] = field(default_factory=dict)
    surfaces: dict[str, int] = field(default_factory=dict)
    source: str = ""

    def dx(self) -> ufl.Measure:
        """Return the cell measure that knows the volumes."""
        return ufl.Measure("dx", domain=self.mesh, subdomain_data=self.cells)

    def ds(self) -> ufl.Measure:
        """Return the measure of the boundary that knows the surfaces."""
        return ufl.Measure("ds", domain=self.mesh, subdomain_data=self.facets)

    def require(self, *, volumes: Sequence[str] = (), surfaces: Sequence[str] = ()) -> None:
        """Check that the named groups are there.

        Raises:
            InvalidInput: one is missing.
        """
        for kind, wanted, there in (("volume", volumes, self.volumes), ("surface", surfaces, self.surfaces)):
            for name in wanted:
                if name not in there:
                    raise InvalidInput("-mesh", self.source, f"a mesh with a {kind} named {name!r}",
                                       f"It has: {', '.join(there) or 'no named ' + kind}. {did_you_mean(name, there)}")


class _Contents(NamedTuple):
    """What the XML part of the file says."""

    cell_grid: str
    facet_grid: str | None
    volumes: dict[str, int]
    surfaces: dict[str, int]
    marked: bool


def read(comm: MPI.Comm, path: str | Path) -> NamedMesh:
    """Read an XDMF mesh of triangles or tetrahedra. Collective.

    The first grid is the mesh. Its first cell attribute, if any, holds the group numbers of the cells, and the first
    attribute of a second grid those of facets. `Information` elements named `volumes` and `surfaces`, such as
    `sink=1 chip=3`, name the numbers.

    Args:
        comm: its ranks share the mesh.
        path: the .xdmf file; its HDF5 file lies where it says.

    Raises:
        InvalidInput: on every rank: there is no such file, or it is not such a mesh.
    """
    path = Path(path)
    contents = on_root(comm, lambda: _look(path))
    try:
        with io.XDMFFile(comm, path, "r") as file:
            mesh = file.read_mesh(name=contents.cell_grid)
            mesh.name = contents.cell_grid
            dimension = mesh.topology.dim
            mesh.topology.create_connectivity(dimension - 1, dimension)
            cells = file.read_meshtags(mesh, contents.cell_grid) if contents.marked else None
            facets = file.read_meshtags(mesh, contents.facet_grid) if contents.facet_grid else None
    except RuntimeError as problem:
        # The checks above are on one rank; what DOLFINx still refuses, it refuses on all.
        raise InvalidInput("-mesh", str(path), "an XDMF mesh that DOLFINx can read", str(problem)) from problem
    return NamedMesh(mesh, cells, facets, contents.volumes, contents.surfaces, str(path))


def _look(path: Path) -> _Contents:
    """Return what the file at `path` holds, having checked what can be checked without reading numbers."""

    def refuse(allowed: str, remedy: str = "") -> InvalidInput:
        return InvalidInput("-mesh", str(path), allowed, remedy)

    if path.suffix != ".xdmf":
        raise refuse("an XDMF file, *.xdmf", "meshio or DOLFINx convert other formats to XDMF.")
    try:
        root = xml.parse(path).getroot()
    except OSError as problem:
        raise refuse("a file that exists and can be read", f"{problem.strerror}.") from None
    except xml.ParseError as problem:
        raise refuse("well-formed XML", f"{problem}.") from None
    grids = root.findall("./Domain/Grid")
    if not grids or any(grid.find("Topology/DataItem") is None for grid in grids) or grids[0].find("Geometry") is None:
        raise refuse("an XDMF file with a uniform grid of cells with topology and geometry")
    for item in root.iter("DataItem"):
        if item.get("Format") == "HDF":
            data = path.parent / (item.text or "").strip().partition(":")[0]
            try:
                with data.open("rb") as file:
                    signature = file.read(len(HDF5_SIGNATURE))
            except OSError as problem:
                raise refuse("a mesh whose HDF5 file lies beside it", f"{data}: {problem.strerror}.") from None
            if signature != HDF5_SIGNATURE:
                raise refuse("a mesh with its numbers in an HDF5 file", f"{data} is not one.")
    facet_grid = grids[1].get("Name") if len(grids) > 1 and grids[1].find("Attribute") is not None else None
    return _Contents(grids[0].get("Name") or "mesh", facet_grid, _names(grids, "volumes"), _names(grids, "surfaces"),
                     grids[0].find("Attribute") is not None)


def _names(grids: list[xml.Element], kind: str) -> dict[str, int]:
    """Return the group numbers by name from the `Information` element called `kind`."""
    names: dict[str, int] = {}
    for grid in grids:
        for information in grid.findall("Information"):
            if information.get("Name") == kind:
                for pair in (information.get("Value") or "").split():
                    name, _, number = pair.partition("=")
                    if number.isdigit():
                        names[name] = int(number)
    return names
