from xml.etree import ElementTree as xml

import dolfinx
import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from dolfinx import fem, io, mesh

from analogpde.fem.output import FieldWriter
from analogpde.fem.sphere import create_sphere

pytestmark = pytest.mark.mpi


def function(domain, degree):
    made = fem.Function(fem.functionspace(domain, ("Lagrange", degree)), name="temperature")
    made.interpolate(lambda x: x[0])
    return made


def test_xdmf_is_a_time_series_that_reads_again(comm, shared_tmp_path):
    domain = mesh.create_unit_square(comm, 4, 4)
    with FieldWriter(shared_tmp_path / "fields", [function(domain, 1)]) as writer:
        for time in (0.0, 2.5):
            writer.write(time)
    comm.barrier()
    assert all(path.exists() for path in writer.files) and writer.path.suffix == ".xdmf"
    times = [float(item.get("Value")) for item in xml.parse(writer.path).iter("Time")]
    assert times == [0.0, 2.5]
    with io.XDMFFile(comm, writer.path, "r") as file:
        again = file.read_mesh()
    assert again.topology.index_map(2).size_global == 32


@pytest.mark.skipif(not dolfinx.has_adios2, reason="this DOLFINx has no ADIOS2")
@pytest.mark.parametrize("curved", [False, True])
def test_higher_degrees_go_to_vtx(comm, shared_tmp_path, curved):
    domain = create_sphere(comm, 0) if curved else mesh.create_unit_cube(comm, 2, 2, 2)
    with FieldWriter(shared_tmp_path / "fields", [function(domain, 2)]) as writer:
        writer.write(0.0)
        writer.write(1.0)
    comm.barrier()
    assert writer.path.suffix == ".bp" and (writer.path / "data.0").stat().st_size > 0


def test_without_adios2_vtk_files_are_written(comm, shared_tmp_path, monkeypatch):
    monkeypatch.setattr(dolfinx, "has_adios2", False)
    with FieldWriter(shared_tmp_path / "fields", [function(mesh.create_unit_square(comm, 3, 3), 2)]) as writer:
        writer.write(0.0)
    comm.barrier()
    assert writer.path.suffix == ".pvd" and writer.path.exists()
    assert len(xml.parse(writer.path).findall(".//DataSet")) == 1


def test_values_survive_in_the_vtk_file(comm, shared_tmp_path, monkeypatch):
    if comm.size > 1:
        return  # one file per rank; the values are checked serially
    monkeypatch.setattr(dolfinx, "has_adios2", False)
    with FieldWriter(shared_tmp_path / "fields", [function(mesh.create_unit_square(comm, 2, 2), 2)]) as writer:
        writer.write(0.0)
    (piece,) = shared_tmp_path.glob("*.vtu")
    arrays = {item.get("Name"): np.fromstring(item.text, sep=" ") for item in xml.parse(piece).iter("DataArray")}
    points = next(np.fromstring(item.text, sep=" ") for item in xml.parse(piece).findall(".//Points/DataArray"))
    assert np.allclose(np.sort(arrays["temperature"]), np.sort(points.reshape(-1, 3)[:, 0]))
