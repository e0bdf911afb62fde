import json
import math

import numpy as np
import pytest

DIGITAL = ["-ksp_type", "cg", "-pc_type", "gamg", "-out", "none"]


# dim, degree, n of the coarser of two meshes, expected order, largest L2 error on the finer one.
# Theory: the interpolation error of a smooth u is O(h^(p+1)) in L2 on a convex domain. Bounds: the errors measured
# with a direct FP64 solve, plus a third.
RATES = [
    (2, 1, 16, 2, 1.4e-3),
    (2, 2, 8, 3, 8.2e-5),
    (2, 3, 4, 4, 1.5e-5),
    (3, 1, 6, 2, 1.8e-2),
    (3, 2, 4, 3, 1.4e-3),
    (3, 3, 2, 4, 8.5e-4),
]


@pytest.mark.mpi
@pytest.mark.parametrize(("dim", "degree", "n", "order", "bound"), RATES)
def test_order_of_the_manufactured_solution(problem, dim, degree, n, order, bound):
    outcome = problem("poisson").SCRIPT.execute(
        [*DIGITAL, "-dim", str(dim), "-degree", str(degree), "-n", str(n), "-refine", "2"])
    assert outcome.code == 0, outcome.message
    assert outcome.result("order of the L2 error") == pytest.approx(order, abs=0.2)
    assert outcome.result("L2 error") < bound


@pytest.mark.mpi
@pytest.mark.parametrize(("degree", "bound"), [(1, 1.5e-3), (2, 3e-4)])
def test_the_corner_limits_the_order_to_four_thirds(problem, degree, bound):
    # u ~ r^(2/3) is in H^(5/3): order 2/3 in H1, and by duality on the same domain 4/3 in L2.
    outcome = problem("poisson").SCRIPT.execute(
        [*DIGITAL, "-case", "lshape", "-degree", str(degree), "-n", "32", "-refine", "2"])
    assert outcome.result("order of the L2 error") == pytest.approx(4 / 3, abs=0.1)
    assert outcome.result("L2 error") < bound


@pytest.mark.mpi
def test_the_effective_permeability_lies_between_the_means(problem):
    outcome = problem("poisson").SCRIPT.execute([*DIGITAL, "-case", "lognormal", "-n", "32", "-seed", "3"])
    low, high = (outcome.result(f"{kind} mean ({end} bound)") for kind, end in
                 (("harmonic", "lower"), ("arithmetic", "upper")))
    assert low < outcome.result("effective permeability") < high  # Wiener's bounds
    # The field does not depend on how many ranks share it: one rank gave this.
    assert outcome.result("arithmetic mean (upper bound)") == pytest.approx(2.87455, rel=1e-5)


def test_the_gaussian_field_is_reproducible_and_normal(problem):
    points = np.random.default_rng(1).uniform(size=(3, 4000)) * 50
    field = problem("poisson").gaussian_field
    g = field(points, 3, 0.1, 7)
    assert np.array_equal(g[:100], field(points[:, :100], 3, 0.1, 7))
    assert not np.allclose(g, field(points, 3, 0.1, 8))
    assert abs(g.mean()) < 0.1 and g.std() == pytest.approx(1, abs=0.05)
    near = field(points + np.array([[0.1], [0], [0]]), 3, 0.1, 7)
    assert np.mean(g * near) == pytest.approx(math.exp(-0.5), abs=0.1)  # covariance at one correlation length


@pytest.mark.mpi
def test_both_solvers_give_the_same_answer_and_verify(problem, solver):
    outcome = problem("poisson").SCRIPT.execute([*solver, "-n", "24", "-out", "none", "-verify"])
    assert outcome.code == 0, outcome.message
    summary = outcome.log.solves[""]
    assert (summary.worst.preconditioner == "analog") == ("analog" in solver)
    assert summary.forward_error <= 2**-23
    assert summary.forward_error <= summary.forward_error_fp32
    assert outcome.result("L2 error") == pytest.approx(1.861e-3, rel=1e-3)


@pytest.mark.mpi
def test_files_are_written_and_the_report_says_what_was_done(problem, comm, shared_tmp_path):
    folder = shared_tmp_path / "a folder"
    outcome = problem("poisson").SCRIPT.execute(
        ["-ksp_type", "cg", "-pc_type", "gamg", "-n", "8", "-out", str(folder), "-degree", "2"])
    comm.barrier()
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == "analogpde-report/1" and report["unknowns"] == 289
    assert report["problem"]["name"] == "poisson" and report["problem"]["parameters"]["degree"] == 2
    assert report["options"]["ksp_type"] == "cg" and "degree" not in report["options"]
    assert report["totals"]["seconds_assemble"] > 0
    assert "<html" in (folder / "report.html").read_text()
    for name in outcome.problem["files"]:
        assert (folder / name).exists(), name


@pytest.mark.mpi
def test_options_of_one_run_do_not_reach_the_next(problem):
    from petsc4py import PETSc

    execute = problem("poisson").SCRIPT.execute
    before = PETSc.Options().getAll()
    assert execute([*DIGITAL, "-n", "4", "-ksp_max_it", "1"]).code == 1
    assert PETSc.Options().getAll() == before
    assert execute([*DIGITAL, "-n", "4"]).code == 0


@pytest.mark.mpi
def test_a_mesh_from_a_file(problem):
    outcome = problem("poisson").SCRIPT.execute([*DIGITAL, "-mesh", "meshes/heat_sink.xdmf"])
    # The body is 6 cm: u is nearly linear there.
    assert outcome.code == 0 and outcome.result("L2 error") < 1e-7
