import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from dolfinx import fem

from analogpde.errors import InvalidInput
from analogpde.fem import checkpoint
from analogpde.fem.series import Series
from analogpde.fem.sphere import create_sphere, curved_icosphere


def make(comm, level=1, degree=2):
    space = fem.functionspace(create_sphere(comm, level), ("Lagrange", degree))
    return space, checkpoint.NodeOrder(space)


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [1, 2])
def test_the_order_is_that_of_the_mesh_as_it_was_made(comm, degree):
    space, nodes = make(comm, degree=degree)
    points, cells = curved_icosphere(1)
    count = cells[:, : 3 if degree == 1 else 6].max() + 1
    x = space.tabulate_dof_coordinates()[: len(nodes.owned)]
    gathered = [nodes.gather(x[:, axis].copy()) for axis in range(3)]
    if comm.rank == 0:
        assert np.allclose(np.array(gathered).T, points[:count], atol=1e-14)
    back = np.array([nodes.scatter(values) for values in gathered]).T
    assert np.array_equal(back, x)  # bit for bit


@pytest.mark.mpi
def test_fields_and_numbers_come_back_bit_for_bit(comm, shared_tmp_path):
    _, nodes = make(comm)
    values = np.random.default_rng(comm.rank).standard_normal(len(nodes.owned)) * 10.0 ** np.arange(len(nodes.owned))
    path = shared_tmp_path / "a.npz"
    checkpoint.write(path, nodes, {"Z": values, "D": -values}, {"step": 7, "dt": 0.1})
    assert checkpoint.read_meta(comm, path) | {"step": 7, "dt": 0.1} == checkpoint.read_meta(comm, path)
    fields = checkpoint.read(path, nodes)
    assert np.array_equal(fields["Z"], values) and np.array_equal(fields["D"], -values)


@pytest.mark.mpi
def test_a_write_that_is_cut_off_leaves_the_old_checkpoint(comm, shared_tmp_path, monkeypatch):
    _, nodes = make(comm)
    path = shared_tmp_path / "a.npz"
    checkpoint.write(path, nodes, {"Z": np.ones(len(nodes.owned))}, {"step": 1})

    def cut_off(file, **arrays):
        file.write(b"PK half of a file")
        raise KeyboardInterrupt if comm.size == 1 else OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", cut_off)
    with pytest.raises((KeyboardInterrupt, InvalidInput)):
        checkpoint.write(path, nodes, {"Z": np.zeros(len(nodes.owned))}, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.read_meta(comm, path)["step"] == 1
    assert (checkpoint.read(path, nodes)["Z"] == 1).all()
    checkpoint.write(path, nodes, {"Z": np.zeros(len(nodes.owned))}, {"step": 3})  # the half file is not in the way
    assert checkpoint.read_meta(comm, path)["step"] == 3


@pytest.mark.mpi
def test_damaged_and_foreign_files_are_refused_on_every_rank(comm, shared_tmp_path):
    _, nodes = make(comm)
    path, whole = shared_tmp_path / "a.npz", shared_tmp_path / "whole.npz"
    for each in (path, whole):
        checkpoint.write(each, nodes, {"Z": np.ones(len(nodes.owned))}, {})
    _, finer = make(comm, level=2)
    with pytest.raises(InvalidInput, match="another mesh"):
        checkpoint.read(path, finer)
    if comm.rank == 0:
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 3] ^= 1  # one bit in the middle of the values
        path.write_bytes(damaged)
    comm.barrier()
    with pytest.raises(InvalidInput, match=r"whole file.*begin the run anew"):
        checkpoint.read(path, nodes)
    with np.load(whole) as file:
        arrays = dict(file)
    for others, reason in (({"Z": np.full(nodes.size, np.nan)}, "finite values"), ({}, "Z"),
                           ({"Z": np.ones(nodes.size), "W": np.ones(nodes.size)}, "W, Z")):
        comm.barrier()
        if comm.rank == 0:
            np.savez(shared_tmp_path / "b.npz", meta=arrays["meta"], **others)
        comm.barrier()
        with pytest.raises(InvalidInput, match=reason):
            checkpoint.read(shared_tmp_path / "b.npz", nodes)
    if comm.rank == 0:
        path.write_bytes(bytes(damaged[:200]))
    comm.barrier()
    for name, remedy in (("a.npz", "analogpde-checkpoint"), ("none.npz", "-checkpoint N")):
        with pytest.raises(InvalidInput, match=remedy):
            checkpoint.read_meta(comm, shared_tmp_path / name)


@pytest.mark.mpi
def test_a_table_goes_on_where_the_checkpoint_was(comm, shared_tmp_path):
    path = shared_tmp_path / "table.csv"
    table = Series(comm, path)
    for step in range(250):  # more than are kept back
        table.add({"step": step, "value": step / 3})
    table.flush()
    if comm.rank == 0:
        with path.open("a") as file:
            file.write("250,8")  # killed in the middle of a row
            file.write("\n251")
    comm.barrier()
    with pytest.raises(InvalidInput, match="own run"):
        Series(comm, path, last={"step": 200, "value": 1.0})
    again = Series(comm, path, last={"step": 200, "value": 200 / 3})
    assert [row["step"] for row in again.rows] == list(range(201))
    assert again.rows[100]["value"] == 100 / 3
    again.add({"step": 201, "value": -1.0})
    again.flush()
    comm.barrier()
    lines = path.read_text().splitlines()
    assert len(lines) == 203 and lines[0] == "step,value" and lines[-1] == "201,-1.0"
