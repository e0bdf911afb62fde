"""A finned aluminium heat sink on a silicon die: the geometry and its Gmsh mesh.

Plate-fin sink, 60 mm × 60 mm × 30 mm (base 5 mm, eight fins 1.6 mm thick, 25 mm high), centred on the
die, 20 mm × 20 mm × 0.8 mm (the thickness of a 300 mm wafer, 0.775 mm, rounded), with a gap-filler pad
0.5 mm thick between them. The origin is the centre of the underside of the base; z points to the fins.

Needs Gmsh (`pip install gmsh`) and nothing else of this project. `scripts/make_meshes.py` runs it and
writes the committed files.
"""

from __future__ import annotations

from typing import Any

MILLIMETRE = 1e-3  # m

BASE_SIDE = 60 * MILLIMETRE
BASE_HEIGHT = 5 * MILLIMETRE
FIN_COUNT = 8
FIN_THICKNESS = 1.6 * MILLIMETRE
FIN_HEIGHT = 25 * MILLIMETRE
DIE_SIDE = 20 * MILLIMETRE
PAD_THICKNESS = 0.5 * MILLIMETRE
DIE_THICKNESS = 0.8 * MILLIMETRE

SINK_MESH_SIZE = 2.6 * MILLIMETRE
DIE_MESH_SIZE = 1.6 * MILLIMETRE

TOLERANCE = 1e-3 * MILLIMETRE  # of the bounding-box tests below


def build(gmsh: Any) -> None:
    """Make the model and its tetrahedral mesh in the running Gmsh session.

    Physical volumes: `sink`, `pad`, `chip`. Physical surfaces: `fins` (all of the sink that air
    reaches: fins, top and sides of the base), `underside` (base beside the pad), `board` (bottom of
    the die) and `die_sides` (sides of die and pad).

    Args:
        gmsh: the module, initialised.
    """
    gmsh.model.add("heat_sink")
    occ = gmsh.model.occ
    half = BASE_SIDE / 2
    base = occ.addBox(-half, -half, 0, BASE_SIDE, BASE_SIDE, BASE_HEIGHT)
    pitch = (BASE_SIDE - FIN_THICKNESS) / (FIN_COUNT - 1)
    fins = [
        occ.addBox(-half + i * pitch, -half, BASE_HEIGHT, FIN_THICKNESS, BASE_SIDE, FIN_HEIGHT)
        for i in range(FIN_COUNT)
    ]
    sink, _ = occ.fuse([(3, base)], [(3, fin) for fin in fins])
    side, pad_bottom = DIE_SIDE / 2, -PAD_THICKNESS
    pad = occ.addBox(-side, -side, pad_bottom, DIE_SIDE, DIE_SIDE, PAD_THICKNESS)
    chip = occ.addBox(-side, -side, pad_bottom - DIE_THICKNESS, DIE_SIDE, DIE_SIDE, DIE_THICKNESS)
    _, pieces = occ.fragment(sink, [(3, pad), (3, chip)])
    occ.synchronize()
    for name, entities in zip(("sink", "pad", "chip"), pieces, strict=True):
        gmsh.model.addPhysicalGroup(3, [tag for _, tag in entities], name=name)
    for name, tags in _surfaces(gmsh).items():
        gmsh.model.addPhysicalGroup(2, tags, name=name)
    _mesh(gmsh)


def _surfaces(gmsh: Any) -> dict[str, list[int]]:
    """Return the tags of the outer surfaces by group name."""
    groups: dict[str, list[int]] = {"fins": [], "underside": [], "board": [], "die_sides": []}
    outer = gmsh.model.getBoundary(gmsh.model.getEntities(3), combined=True, oriented=False)
    for _, tag in outer:
        low, high = (gmsh.model.getBoundingBox(2, tag)[i : i + 3] for i in (0, 3))
        if high[2] > TOLERANCE:
            groups["fins"].append(tag)
        elif low[2] > -TOLERANCE:
            groups["underside"].append(tag)
        elif high[2] < -PAD_THICKNESS - DIE_THICKNESS + TOLERANCE:
            groups["board"].append(tag)
        else:
            groups["die_sides"].append(tag)
    return groups


def _mesh(gmsh: Any) -> None:
    """Mesh with smaller cells at the die, where the heat is made, than in the sink."""
    gmsh.model.mesh.setSize(gmsh.model.getEntities(0), SINK_MESH_SIZE)
    low = gmsh.model.getEntitiesInBoundingBox(
        -DIE_SIDE, -DIE_SIDE, -1, DIE_SIDE, DIE_SIDE, TOLERANCE, dim=0
    )
    gmsh.model.mesh.setSize(low, DIE_MESH_SIZE)
    # One thread and a fixed algorithm: the same file on every machine with the same Gmsh.
    gmsh.option.setNumber("General.NumThreads", 1)
    gmsh.option.setNumber("Mesh.Algorithm3D", 1)
    gmsh.option.setNumber("Mesh.OptimizeNetgen", 1)
    gmsh.model.mesh.generate(3)
    gmsh.model.mesh.optimize("Netgen")
