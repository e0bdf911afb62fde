import dataclasses
import math

import numpy as np
import pytest

DIRECT = ["-ksp_type", "preonly", "-pc_type", "lu", "-out", "none"]
PARALLEL = ["-ksp_type", "cg", "-pc_type", "gamg", "-ksp_rtol", "1e-12", "-out", "none"]
HEAT, FIELD_HEAT = "relative change of the integral of density times theta'", "the same of the field as solved"
ENERGY = "kinetic energy, of the potential energy released"


@pytest.fixture
def current(problem):
    return problem("density_current")


@pytest.fixture
def direct(comm):
    """Options of solves to rounding, on any number of ranks."""
    return DIRECT if comm.size == 1 else PARALLEL


@pytest.mark.mpi
def test_a_small_disturbance_spins_up_as_linear_theory_says(current, direct, monkeypatch):
    # Boussinesq without viscosity: θ' = A cos kx sin mz gives ω = g A k/θ₀ t sin kx sin mz while it is small (no
    # stratification, and products are of second order in A), so that u = −m ω₀/(k² + m²) sin kx cos mz.
    size, amplitude, time = (4000.0, 2000.0), 1e-4, 10.0
    k, m = math.pi / size[0], math.pi / size[1]
    case = dataclasses.replace(current.CASES["bubble"], size=size, viscosity=0.0, resolution=62.5, t_end=time,
                               temperature=lambda _, x: amplitude * np.cos(k * x[0]) * np.sin(m * x[1]))
    monkeypatch.setitem(current.CASES, "bubble", case)
    outcome = current.SCRIPT.execute([*direct, "-case", "bubble", "-equations", "boussinesq", "-dt", "2"])
    assert outcome.code == 0, outcome.message
    speed = 9.81 / 300 * amplitude * k * time * m / (k**2 + m**2)
    # The wind is a derivative of quadratic functions, wrong by ψ''' h²/12 at the ends of cells of length h.
    error = 1.1 * (m * 2 * case.resolution) ** 2 / 12
    assert outcome.result("largest horizontal wind") == pytest.approx(speed, rel=error)
    assert outcome.result("smallest horizontal wind") == pytest.approx(-speed, rel=error)
    assert outcome.result("largest updraught") == pytest.approx(speed * k / m, rel=error)


@pytest.mark.mpi
def test_heat_is_conserved_to_rounding_by_poor_solves(current, comm):
    poor = ["-ksp_type", "cg", "-pc_type", "jacobi", "-ksp_rtol", "1e-3", "-out", "none"]
    outcome = current.SCRIPT.execute([*poor, "-resolution", "400", "-t_end", "50", "-dt", "2"])
    assert outcome.code == 0, outcome.message
    # 25 steps; each sums 1105 numbers: 25 · 1105 · 2⁻⁵³ = 3e-12 at the very worst.
    assert abs(outcome.result(HEAT)) < 3e-12
    assert abs(outcome.result(FIELD_HEAT)) > 1e-9  # so it is not the solves that conserve it


@pytest.mark.mpi
def test_energy_is_neither_made_nor_lost_without_viscosity(current, direct):
    def defect(equations, dt, resolution="400"):
        outcome = current.SCRIPT.execute([*direct, "-resolution", resolution, "-t_end", "96", "-viscosity", "0",
                                          "-equations", equations, "-dt", dt])
        assert outcome.code == 0, outcome.message
        return abs(outcome.result(ENERGY) - 1)

    # The anelastic equations conserve it in space exactly; the scheme has order 3 in time, its start order 2.
    coarse, fine = defect("anelastic", "4"), defect("anelastic", "2")
    assert coarse < 1e-2 and coarse / fine > 3.5
    # The pseudo-incompressible ones up to the discretisation. What sets them apart is θ'/θ₀ = 5 % of the buoyancy: a
    # wrong sign there would show as per cents.
    assert defect("pseudo_incompressible", "2") < 2e-3


@pytest.mark.mpi
@pytest.mark.parametrize("chip", ["rram128", "pku2025"])
def test_chips_program_each_matrix_once_and_agree_with_digital_solves(current, direct, chip):
    run = ["-resolution", "400", "-t_end", "12", "-dt", "2"]
    analog = current.SCRIPT.execute(["-ksp_type", "analog", "-analog_chip", chip, "-out", "none", "-verify", *run])
    assert analog.code == 0, analog.message
    # One solve a step, and the streamfunction of the first state.
    assert {prefix: solve.count for prefix, solve in analog.log.solves.items()} == {
        "poisson_": 7, "temperature_": 6, "vorticity_": 6}
    assert analog.result("tiles programmed after the first step") == 0
    for solve in analog.log.solves.values():
        assert solve.worst.preconditioner == "analog" and solve.operations.tiles_programmed > 0
        assert solve.forward_error <= 2**-23
    digital = current.SCRIPT.execute([*direct, *run])  # the log is now this run's
    for name in ("largest horizontal wind", "largest downdraught", "smallest potential temperature perturbation"):
        # Each step adds a relative error of 2⁻²³ at most; the flow is smooth and does not amplify it yet.
        assert analog.result(name) == pytest.approx(digital.result(name), rel=6 * 2**-23 * 10)


def test_the_current_at_900_s(current):
    # At 400 m the head is a cell or two high; scripts/study_weather.py is about finer ones.
    outcome = current.SCRIPT.execute([*DIRECT, "-resolution", "400"])
    assert outcome.code == 0, outcome.message
    assert outcome.result("front (-1 K at the ground)") == pytest.approx(15537, abs=400)  # the distance of nodes
    assert abs(outcome.result(HEAT)) < 404 * 1105 * 2**-53
    assert outcome.result("largest horizontal wind") == pytest.approx(36.46, rel=0.15)
    assert 0 < outcome.result(ENERGY) < 1


def test_a_long_step_is_seen(current):
    outcome = current.SCRIPT.execute([*DIRECT, "-resolution", "400", "-dt", "15"])
    assert outcome.code == 1 and "shorter -dt" in outcome.message


def test_edge_and_rotors(current):
    x = np.arange(5.0)
    assert current.last_crossing(x, np.array([3.0, 0.0, 2.0, 1.5, 0.5]), 1.0) == pytest.approx(3.5)
    assert math.isnan(current.last_crossing(x, np.zeros(5), 1.0))
    assert current.last_crossing(x, np.ones(5), 1.0) == 4.0
    line = np.array([0.0, -3, -2.5, -3, -1, -2.5, 0, -0.5, 0])  # two dips, one of them with a ripple of 0.5 K
    assert current.rotors(x, np.array([0.0, 1200.0]), np.array([np.zeros(9), line])) == 2


@pytest.mark.mpi
@pytest.mark.parametrize("argv", ["-resolution 300", "-resolution 6400", "-n 32", "-dim 3", "-degree 3",
                                  "-mesh meshes/heat_sink.xdmf", "-viscosity -1", "-equations compressible"])
def test_options_that_do_not_fit_are_refused(current, argv):
    outcome = current.SCRIPT.execute([*DIRECT, *argv.split()])
    assert outcome.code == 2 and "allowed" in outcome.message


@pytest.mark.mpi
def test_files(current, comm, direct, shared_tmp_path):
    pytest.importorskip("matplotlib")
    outcome = current.SCRIPT.execute([*direct[:-2], "-case", "bubble", "-resolution", "50", "-t_end", "40", "-out",
                                      str(shared_tmp_path)])
    comm.barrier()
    assert outcome.code == 0, outcome.message
    names = {path.name.partition(".")[0] for path in shared_tmp_path.iterdir()}
    assert {"density_current", "fields", "diagnostics", "report"} <= names
    rows = np.genfromtxt(shared_tmp_path / "diagnostics.csv", delimiter=",", names=True)
    assert rows["time"][-1] == pytest.approx(40) and np.ptp(rows["heat"]) < 1e-9 * rows["heat"][0]
