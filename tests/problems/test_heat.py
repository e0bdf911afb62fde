import math

import pytest

LU = ["-ksp_type", "preonly", "-pc_type", "lu", "-pc_factor_mat_solver_type", "mumps", "-out", "none"]


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", [["-scheme", "bdf2"], ["-theta", "0.5"]], ids=["bdf2", "crank-nicolson"])
def test_nafems_t3(problem, solver, scheme):
    # Published: 36.60 °C. Fine meshes and steps converge to 36.602; these choices stay within 0.05.
    outcome = problem("heat").SCRIPT.execute(
        [*solver, "-case", "nafems_t3", "-n", "20", "-degree", "2", "-dt", "0.5", *scheme, "-out", "none"])
    assert outcome.code == 0, outcome.message
    assert outcome.result("temperature at x = 0.08 m") == pytest.approx(36.60, abs=0.05)


@pytest.mark.mpi
@pytest.mark.parametrize("degree", [1, 2])
def test_nafems_t4(problem, solver, degree):
    # Published: 18.3 °C (18.25 in the analytical solution of Carslaw & Jaeger).
    outcome = problem("heat").SCRIPT.execute(
        [*solver, "-case", "nafems_t4", "-n", "18", "-degree", str(degree), "-out", "none", "-verify"])
    assert outcome.code == 0, outcome.message
    assert outcome.result("temperature at E = (0.6 m, 0.2 m)") == pytest.approx(18.25, abs=0.12)
    assert outcome.log.solves[""].forward_error <= 2**-23


# What is refined, the two values, expected order, largest relative error of the finer one, further options.
# Space: L2 order degree + 1 with a step so small that time plays no part. Time: the mode decays as exp(−λt), λ = 2π²;
# Crank–Nicolson and BDF2 are of second, Euler of first order. Bounds: measured plus a third.
RATES = [
    ("-n", "4 8", 2, 4e-2, "-degree 1 -dt 0.0005 -t_end 0.01 -theta 0.5"),
    ("-n", "4 8", 3, 1.5e-3, "-degree 2 -dt 0.0005 -t_end 0.01 -theta 0.5"),
    ("-dt", "0.01 0.005", 2, 3e-3, "-degree 3 -n 6 -theta 0.5"),
    ("-dt", "0.005 0.0025", 2, 1e-3, "-degree 3 -n 6 -scheme bdf2"),
    ("-dt", "0.005 0.0025", 1, 4e-2, "-degree 3 -n 6 -theta 1"),
]


@pytest.mark.mpi
@pytest.mark.parametrize(("refined", "values", "order", "bound", "options"), RATES)
def test_orders_in_space_and_time(problem, refined, values, order, bound, options):
    errors = []
    for value in values.split():
        outcome = problem("heat").SCRIPT.execute([*LU, "-case", "box", refined, value, *options.split()])
        assert outcome.code == 0, outcome.message
        errors.append(outcome.result("relative L2 error"))
    assert errors[1] < bound
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.mpi
def test_the_box_in_three_dimensions(problem):
    outcome = problem("heat").SCRIPT.execute(
        [*LU, "-case", "box", "-dim", "3", "-n", "6", "-degree", "2", "-dt", "0.001", "-t_end", "0.01"])
    assert outcome.result("relative L2 error") < 6e-3


@pytest.mark.mpi
def test_the_heat_sink_conserves_energy(problem, solver):
    outcome = problem("heat").SCRIPT.execute([*solver, "-theta", "1", "-dt", "20", "-t_end", "60", "-out", "none"])
    assert outcome.code == 0, outcome.message
    # The scheme's own balance: only the solves can spoil it.
    assert outcome.result("energy imbalance, relative") < 1e-6
    assert 40 < outcome.result("lowest temperature") < outcome.result("highest temperature") < 70
    assert outcome.log.solves[""].count == 3


@pytest.mark.mpi
def test_a_heat_sink_without_power_stays_at_the_temperature_of_the_air(problem):
    outcome = problem("heat").SCRIPT.execute([*LU, "-power", "0", "-ambient", "40", "-dt", "10", "-t_end", "20"])
    assert outcome.result("highest temperature") == pytest.approx(40)
    assert outcome.result("lowest temperature") == pytest.approx(40)


def test_the_demo_writes_fields_picture_and_reports(problem, tmp_path):
    pytest.importorskip("matplotlib")
    outcome = problem("heat").SCRIPT.execute(
        ["-ksp_type", "cg", "-pc_type", "gamg", "-dt", "50", "-t_end", "100", "-out", str(tmp_path)])
    assert outcome.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "fields.xdmf", "fields.h5", "heat.png", "report.json", "report.html"}
    assert (tmp_path / "heat.png").stat().st_size > 20_000
    assert "data:image/png" in (tmp_path / "report.html").read_text()
