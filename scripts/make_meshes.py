"""Re-make the committed meshes from their Gmsh sources: `python scripts/make_meshes.py`.

Needs Gmsh and h5py (`pip install gmsh h5py`), which nothing else in this project needs: the meshes are
committed as XDMF with HDF5 beside it, and DOLFINx reads those alone. The names of the physical groups
are kept in the XDMF as `Information` elements, which ParaView and DOLFINx pass over and
`analogpde.fem.named_mesh` reads.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import numpy as np
from numpy.typing import NDArray

MESHES = Path(__file__).resolve().parent.parent / "meshes"
SOURCES = ("heat_sink",)

# Gmsh's element type numbers and XDMF's words for cells and facets of a tetrahedral mesh.
NUMBER_TYPES = {"f4": "Float", "i4": "Int", "i1": "Char"}
GROUPS = ((3, 4, 4, "Tetrahedron", "volumes"), (2, 2, 3, "Triangle", "surfaces"))


def collect(gmsh: Any, dimension: int, kind: int, corners: int) -> tuple[NDArray, NDArray, dict[str, int]]:
    """Return nodes (count, corners) and group number (count,) of all named entities, and the names."""
    nodes, marks, names = [], [], {}
    for _, group in gmsh.model.getPhysicalGroups(dimension):
        names[gmsh.model.getPhysicalName(dimension, group)] = group
        for entity in gmsh.model.getEntitiesForPhysicalGroup(dimension, group):
            _, flat = gmsh.model.mesh.getElementsByType(kind, entity)
            part = np.asarray(flat, dtype=np.int64).reshape(-1, corners)
            nodes.append(part)
            marks.append(np.full(len(part), group, dtype=np.int8))
    return np.concatenate(nodes), np.concatenate(marks), names


def write(gmsh: Any, path: Path) -> None:
    """Write the mesh of the running Gmsh session as `path`.xdmf and `path`.h5.

    Args:
        gmsh: the module, with a tetrahedral mesh of first order and named physical groups.
        path: the files' path without suffix; its name becomes the name of the mesh.
    """
    import h5py

    tags, flat, _ = gmsh.model.mesh.getNodes()
    position = np.zeros(int(tags.max()) + 1, dtype=np.int64)
    position[tags] = np.arange(len(tags))
    document = xml.Element("Xdmf", Version="3.0")
    domain = xml.SubElement(document, "Domain")
    with h5py.File(path.with_suffix(".h5"), "w", libver=("earliest", "v110")) as file:

        def item(parent: xml.Element, dataset: str, values: NDArray) -> None:
            # Small types and no compression: HDF5 converts when it reads, but not every build of it inflates.
            file.create_dataset(dataset, data=values, track_times=False)
            element = xml.SubElement(parent, "DataItem", Dimensions=" ".join(map(str, values.shape)), Format="HDF",
                                     NumberType=NUMBER_TYPES[values.dtype.str[1:]],
                                     Precision=str(values.dtype.itemsize))
            element.text = f"{path.name}.h5:{dataset}"

        for dimension, kind, corners, word, grid_name in GROUPS:
            nodes, marks, names = collect(gmsh, dimension, kind, corners)
            grid = xml.SubElement(domain, "Grid", Name=path.name if dimension == 3 else grid_name, GridType="Uniform")
            xml.SubElement(grid, "Information", Name=grid_name,
                           Value=" ".join(f"{name}={group}" for name, group in names.items()))
            topology = xml.SubElement(grid, "Topology", TopologyType=word, NumberOfElements=str(len(nodes)),
                                      NodesPerElement=str(corners))
            item(topology, f"/{grid_name}/topology", position[nodes].astype(np.int32))
            geometry = xml.SubElement(grid, "Geometry", GeometryType="XYZ")
            if dimension == 3:
                # FP32 keeps nanometres; rounded first, so that planes stay planes.
                item(geometry, "/geometry", np.round(np.reshape(flat, (-1, 3)), 9).astype(np.float32))
            else:
                geometry.append(domain[0].find("Geometry/DataItem"))
            attribute = xml.SubElement(grid, "Attribute", Name=grid_name, AttributeType="Scalar", Center="Cell")
            item(attribute, f"/{grid_name}/group", marks[:, None])
    xml.indent(document)
    xml.ElementTree(document).write(path.with_suffix(".xdmf"), encoding="utf-8", xml_declaration=True)


def main() -> int:
    """Make every mesh; return the exit code."""
    try:
        import gmsh
        import h5py  # noqa: F401
    except (ImportError, OSError) as problem:
        print(f"make_meshes: {problem}. Try `pip install gmsh h5py` (Gmsh also wants libGLU and libXrender).",
              file=sys.stderr)
        return 1
    for name in SOURCES:
        specification = importlib.util.spec_from_file_location(name, MESHES / f"{name}.py")
        assert specification is not None and specification.loader is not None
        source = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(source)
        gmsh.initialize()
        gmsh.option.setNumber("General.Terminal", 0)
        source.build(gmsh)
        write(gmsh, MESHES / name)
        gmsh.finalize()
        print(f"{MESHES / name}.xdmf")
    return 0


if __name__ == "__main__":
    sys.exit(main())
