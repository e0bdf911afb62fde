import importlib.util
import math
import shutil
from pathlib import Path

import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from dolfinx import fem

from analogpde.errors import InvalidInput
from analogpde.fem.forms import integral
from analogpde.fem.named_mesh import read

MESHES = Path(__file__).parents[2] / "meshes"
specification = importlib.util.spec_from_file_location("heat_sink_geometry", MESHES / "heat_sink.py")
geometry = importlib.util.module_from_spec(specification)
specification.loader.exec_module(geometry)


@pytest.mark.mpi
def test_the_heat_sink_has_its_groups_and_its_size(comm):
    solid = read(comm, MESHES / "heat_sink.xdmf")
    assert set(solid.volumes) == {"sink", "pad", "chip"}
    assert set(solid.surfaces) == {"fins", "underside", "board", "die_sides"}
    one, dx, ds = fem.Constant(solid.mesh, 1.0), solid.dx(), solid.ds()
    volumes = {name: integral(comm, one * dx(group)) for name, group in solid.volumes.items()}
    areas = {name: integral(comm, one * ds(group)) for name, group in solid.surfaces.items()}
    # Flat faces: the mesh is exact, up to the FP32 in which its coordinates are stored.
    side, die, fin = geometry.BASE_SIDE, geometry.DIE_SIDE, geometry.FIN_HEIGHT
    fins, thick = geometry.FIN_COUNT, geometry.FIN_THICKNESS
    assert volumes["chip"] == pytest.approx(die**2 * geometry.DIE_THICKNESS, rel=1e-6)
    assert volumes["pad"] == pytest.approx(die**2 * geometry.PAD_THICKNESS, rel=1e-6)
    assert volumes["sink"] == pytest.approx(side**2 * geometry.BASE_HEIGHT + fins * side * thick * fin, rel=1e-6)
    assert areas["board"] == pytest.approx(die**2, rel=1e-6)
    assert areas["underside"] == pytest.approx(side**2 - die**2, rel=1e-6)
    assert areas["die_sides"] == pytest.approx(4 * die * (geometry.DIE_THICKNESS + geometry.PAD_THICKNESS), rel=1e-6)
    assert areas["fins"] == pytest.approx(
        side**2 + 4 * side * geometry.BASE_HEIGHT + 2 * fins * fin * (side + thick), rel=1e-6)
    assert math.isclose(sum(areas.values()), integral(comm, one * solid.ds()))


def test_the_committed_files_are_small():
    assert sum(path.stat().st_size for path in MESHES.glob("heat_sink.*")) < 1_000_000


@pytest.mark.mpi
def test_a_missing_group_is_named_with_the_nearest_that_is_there(comm):
    solid = read(comm, MESHES / "heat_sink.xdmf")
    with pytest.raises(InvalidInput, match="Did you mean chip"):
        solid.require(volumes=["chips"])


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["absent", "other suffix", "no xml", "no grid", "no numbers", "broken numbers"])
def test_what_is_no_mesh_is_refused_on_every_rank(comm, shared_tmp_path, kind):
    path = shared_tmp_path / ("mesh.msh" if kind == "other suffix" else "heat_sink.xdmf")
    if comm.rank == 0 and kind != "absent":
        text = {"no xml": "<Xdmf><Domain>", "no grid": "<Xdmf><Domain/></Xdmf>"}
        shutil.copy(MESHES / "heat_sink.xdmf", path)
        if kind in text:
            path.write_text(text[kind])
        if kind == "broken numbers":
            path.with_suffix(".h5").write_text("not HDF5")
    comm.barrier()
    with pytest.raises(InvalidInput, match="-mesh"):
        read(comm, path)
