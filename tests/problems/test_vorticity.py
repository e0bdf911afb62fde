import numpy as np
import pytest

DIGITAL = ["-ksp_type", "cg", "-poisson_pc_type", "gamg", "-mass_pc_type", "jacobi", "-out", "none"]
ERROR = "relative L2 error of the vorticity"


@pytest.mark.mpi
def test_the_wave_turns_as_it_should(problem):
    # Level 2, half a day: 2.5e-2 measured (5.6e-2 after 7 days); a wrong sign or speed gives an error of order one.
    outcome = problem("vorticity").SCRIPT.execute([*DIGITAL, "-level", "2", "-days", "0.5", "-dt", "3600"])
    assert outcome.code == 0, outcome.message
    assert outcome.result(ERROR) < 2.7e-2
    # The semi-discrete scheme conserves energy exactly; RK4 loses O(dt^5).
    assert abs(outcome.result("relative change of kinetic energy")) < 1e-7
    assert abs(outcome.result("relative change of enstrophy")) < 1e-3
    assert outcome.result("rotation of the exact wave") == pytest.approx(12.195, abs=1e-3)  # Haurwitz's formula


def test_refinement_helps(problem):
    errors = [problem("vorticity").SCRIPT.execute([*DIGITAL, "-n", n, "-t_end", "21600"]).result(ERROR)
              for n in ("2", "4")]
    assert np.log2(errors[0] / errors[1]) > 1.8  # 2.9 from level 2 to 3; the coarsest meshes see four waves barely


@pytest.mark.mpi
def test_both_systems_are_solved_at_every_stage_and_verified(problem):
    outcome = problem("vorticity").SCRIPT.execute(
        ["-ksp_type", "analog", "-level", "1", "-days", "0.125", "-verify", "-out", "none", "-snapshots", "0"])
    assert outcome.code == 0, outcome.message
    # 6 steps of 4 stages, and the diagnosis of the first and the last state.
    assert {prefix: summary.count for prefix, summary in outcome.log.solves.items()} == {"poisson_": 26, "mass_": 26}
    for summary in outcome.log.solves.values():
        assert summary.worst.preconditioner == "analog"
        assert summary.forward_error <= 2**-23
        assert summary.operations.tiles_programmed < 100  # once, not at every solve


@pytest.mark.mpi
def test_a_prefixed_option_overrules_the_plain_one(problem):
    outcome = problem("vorticity").SCRIPT.execute(
        ["-ksp_type", "analog", "-mass_ksp_type", "cg", "-mass_pc_type", "jacobi", "-level", "1", "-t_end", "1800",
         "-out", "none"])
    kinds = {prefix: summary.worst.preconditioner for prefix, summary in outcome.log.solves.items()}
    assert kinds == {"poisson_": "analog", "mass_": "jacobi"}


@pytest.mark.mpi
@pytest.mark.parametrize(
    "argv",
    ["-n 3", "-n 4 -level 1", "-level 10", "-dim 3", "-mesh meshes/heat_sink.xdmf", "-days 1 -t_end 3600", "-days 0"],
)
def test_options_that_contradict_a_sphere_are_refused(problem, argv):
    outcome = problem("vorticity").SCRIPT.execute([*DIGITAL, *argv.split()])
    assert outcome.code == 2 and "allowed" in outcome.message


@pytest.mark.mpi
def test_fields_and_picture_of_the_sphere(problem, comm, shared_tmp_path):
    pytest.importorskip("matplotlib")
    outcome = problem("vorticity").SCRIPT.execute(
        [*DIGITAL[:-2], "-level", "1", "-t_end", "3600", "-out", str(shared_tmp_path)])
    comm.barrier()
    assert outcome.code == 0
    assert (shared_tmp_path / "vorticity.png").exists() and list(shared_tmp_path.glob("fields.*"))
