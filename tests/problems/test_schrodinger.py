import math
import re
import sys

import numpy as np
import pytest

LU = ["-ksp_type", "preonly", "-pc_type", "lu", "-pc_factor_mat_solver_type", "mumps", "-out", "none"]
ANALOG = ["-ksp_type", "analog", "-out", "none"]
METHODS = ["shift_invert", "inverse_iteration"]


def run(problem, argv, solver=LU):
    if "inverse_iteration" not in argv and "time" not in argv:
        pytest.importorskip("slepc4py.SLEPc", reason="this PETSc has no slepc4py", exc_type=ImportError)
    outcome = problem("schrodinger").SCRIPT.execute([*solver, *argv.split()])
    assert outcome.code == 0, outcome.message
    return outcome


def expected(outcome, name):
    return next(entry["expected"] for entry in outcome.problem["results"] if entry["name"] == name)


@pytest.mark.mpi
@pytest.mark.parametrize("method", METHODS)
def test_levels_of_the_oscillator_on_tiles(problem, method):
    outcome = run(problem, f"-n 10 -degree 2 -states 3 -method {method} -verify", ANALOG)
    summary = outcome.log.solves["st_"]
    assert summary.worst.preconditioner == "analog" and summary.forward_error <= 2**-23
    for i, exact in enumerate((1.0, 2.0, 2.0)):
        assert expected(outcome, f"level {i}") == exact
        # A conforming element with exact quadrature: energies from above; the box adds, within 1e-9.
        assert 1 - 1e-8 < outcome.result(f"level {i}") / exact < 1.03
    # Shift-and-invert: the square of the solves' 2^-23, times the spread of S in units of E, below 1e3. Inverse
    # iteration: it stops when a step changes an energy by less than 1e-8 of it.
    gap = outcome.result("largest relative difference from FP64 solves")
    assert gap < {"shift_invert": 2**-46 * 1e3, "inverse_iteration": 1e-8}[method]
    if method == "shift_invert":
        assert outcome.result("largest relative residual of a state") < 1e-6


@pytest.mark.mpi
def test_a_box_that_cuts_states_off_is_told(problem, comm, capsys):
    name, level = "relative fall of a level in a box 10 % wider", "level 0"
    argv = "-n 12 -quadrant -states 1 -method inverse_iteration -box"
    energies = []
    for box in (1.0, 1.1, 5.5):
        outcome = run(problem, f"{argv} {box}")
        energies.append((outcome.result(level), outcome.result(name)))
        assert comm.bcast("Take a larger -box" in capsys.readouterr().out) == (box < 2)
    # The trapezoidal rule for d(ln E)/d(ln side) between the first two; it varies little there, −2 being that of V = 0
    fall = 5 * math.log(1.1) * (energies[0][1] + energies[1][1])
    assert math.log(energies[0][0] / energies[1][0]) == pytest.approx(fall, rel=0.01)
    assert energies[2][1] < 1e-6


@pytest.mark.mpi
@pytest.mark.parametrize("chip", ["rram128", "pku2025"])
def test_a_level_to_better_than_a_millionth_on_tiles(problem, chip):
    # Degree 4, error c h^8; with FP64 solves 1.9e-7. Solves to two digits are enough for corrections.
    outcome = run(problem, f"-quadrant -n 10 -degree 4 -states 1 -method inverse_iteration -ksp_rtol 1e-2 "
                  f"-analog_chip {chip}", ANALOG)
    assert abs(outcome.result("level 0") - 1) < 1e-6
    assert outcome.result("programmings of the matrix of st_") == 1


# Theory: an eigenvalue of degree-p elements converges as h^(2p). Bounds of the error on the finer mesh: measured plus
# a half. 3-D meshes are coarse, so their orders have not settled.
ORDERS = [
    ("-case harmonic -states 1 -degree 1 -n 16", 2, 0.15, 1.4e-2),
    ("-case harmonic -states 1 -degree 2 -n 12", 4, 0.3, 3e-4),
    ("-case harmonic -states 1 -degree 3 -n 12", 6, 0.4, 3e-6),
    ("-case double_well -states 1 -degree 2 -n 24", 4, 0.4, 6e-5),
    ("-case hydrogen -quadrant -states 1 -degree 2 -n 16", 4, 0.4, 3e-5),
    ("-case hydrogen -quadrant -states 1 -degree 3 -n 12", 6, 0.6, 6e-6),
    ("-case harmonic -dim 3 -quadrant -states 1 -degree 2 -n 4", 4, 0.6, 3e-3),
]


@pytest.mark.parametrize(("argv", "order", "slack", "bound"), ORDERS)
def test_order_of_convergence(problem, argv, order, slack, bound):
    outcome = run(problem, f"{argv} -refine 2")
    assert outcome.result("order of the lowest level's error") == pytest.approx(order, abs=slack)
    assert outcome.result("largest relative error of a level") < bound


@pytest.mark.parametrize(
    ("argv", "exact"),
    [
        ("-case harmonic -n 12 -states 6", [1, 2, 2, 3, 3, 3]),
        ("-case harmonic -n 8 -quadrant -states 3", [1, 3, 3]),
        ("-case hydrogen -n 24 -states 4", [-2, -2 / 9, -2 / 9, -2 / 9]),
        ("-case hydrogen -n 12 -quadrant -states 4 -charge 2", [-8, -8 / 9, -8 / 25, -8 / 25]),
        ("-case double_well -n 16 -states 5 -omega 2 -zeta 0.5",
         [(7.25 - 8**0.5) / 2 + 1, 5.25 / 2 + 1, (7.25 - 8**0.5) / 2 + 3, 5.25 / 2 + 3, (7.25 + 8**0.5) / 2 + 1]),
    ],
)
def test_groups_of_levels_are_complete(problem, argv, exact):
    outcome = run(problem, argv)
    found = [outcome.result(f"level {i}") for i in range(len(exact))]
    assert [expected(outcome, f"level {i}") for i in range(len(exact))] == pytest.approx(exact, rel=1e-12)
    assert found == pytest.approx(exact, rel=2e-3)


def tiles(outcome, prefix):
    """Return how many tiles the preconditioner says it has."""
    text = outcome.log.solves[prefix].worst.description
    return sum(int(number) for number in re.findall(r"(\d+) tiles", text)) + text.count("one tile")


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("argv", "more", "prefix"),
    [("-n 8 -degree 2 -states 1", "-states 4", "st_"),
     ("-n 8 -degree 2 -states 1 -method inverse_iteration", "-states 4", "st_"),
     ("-mode time -n 6 -degree 2 -dt 0.05 -t_end 0.1", "-t_end 0.3", "")],
)
def test_a_constant_matrix_is_programmed_once(problem, argv, more, prefix):
    # By the ledger: as many tiles written as there are, however many solves they do.
    counts = []
    for text in (argv, f"{argv} {more}"):
        # A box of its own: the default one grows with the number of states.
        outcome = run(problem, f"{text} -box 5", ANALOG)
        written = outcome.log.totals
        assert written.tiles_programmed - written.tiles_reprogrammed == tiles(outcome, prefix) > 0
        counts.append((written.tiles_programmed, outcome.log.solves[prefix].count))
    assert counts[0][0] == counts[1][0] and counts[0][1] < counts[1][1]


@pytest.mark.mpi
def test_poor_solves_cost_inverse_iteration_steps_and_no_digits(problem):
    outcome = run(problem, "-n 10 -degree 2 -states 1 -method inverse_iteration -verify -ksp_rtol 0.1", ANALOG)
    assert outcome.result("largest relative difference from FP64 solves") < 1e-8
    assert outcome.log.solves["st_"].iterations_max <= 5


@pytest.mark.mpi
@pytest.mark.parametrize("solver", [LU, ANALOG], ids=["direct", "analog"])
def test_the_norm_is_kept_to_the_accuracy_of_the_solves(problem, solver):
    outcome = run(problem, "-mode time -n 8 -degree 2 -dt 0.05 -t_end 0.2", solver)
    # A step changes ψᵀMψ by 4⟨ψ_half, r⟩ ≤ 4 ‖ψ‖ ‖r‖, ‖r‖ ≤ ρ √2 ‖Mψ‖; ‖ψ‖‖Mψ‖/ψᵀMψ ≤ √κ(M), below 10 for degree 2.
    bound = 4 * 4 * math.sqrt(2) * 10 * outcome.log.solves[""].relative_residual
    assert abs(outcome.result("relative change of the norm")) < max(bound, 1e-12)
    assert bound < 1e-4
    assert outcome.log.solves[""].count == 4


def test_time_steps_are_of_second_order(problem):
    argv = "-mode time -n 16 -degree 3 -t_end 1 -displacement 1 -dt"
    errors = [run(problem, f"{argv} {dt}").result("relative L2 error of the wave function") for dt in (0.2, 0.1)]
    assert errors[1] < 1e-2 and math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("case", "arrival"), [("harmonic", 1.0), ("double_well", 0.0)])
def test_a_packet_comes_back_or_tunnels_to_the_other_side(problem, case, arrival):
    outcome = run(problem, f"-mode time -case {case} -n 16 -degree 3")
    name = "overlap with the first state"
    assert expected(outcome, name) == pytest.approx(arrival, abs=1e-3)
    assert outcome.result(name) == pytest.approx(arrival, abs=1e-2)
    assert outcome.result("relative L2 error of the wave function") < 3e-2
    assert abs(outcome.result("relative change of the norm")) < 1e-11
    assert abs(outcome.result("relative change of the energy")) < 1e-11


@pytest.mark.mpi
def test_three_dimensions_on_tiles(problem):
    outcome = run(problem, "-dim 3 -case hydrogen -quadrant -n 4 -degree 2", ANALOG)
    assert -0.5 < outcome.result("level 0") < -0.45  # from above, as a conforming element must


BAD = [
    ("-shift 1", "below the lowest level"),
    ("-case hydrogen -shift -0.4 -dim 3", "below the lowest level"),
    ("-n 1 -degree 1", "-n or -degree"),
    ("-case double_well -states 20", "at most 7"),
    ("-case hydrogen -n 5", "even number"),
    ("-case hydrogen -mode time", "harmonic | double_well"),
    ("-quadrant -mode time", "-quadrant"),
    ("-mode time -dt 3 -t_end 6", "positive definite"),
    ("-mesh meshes/heat_sink.xdmf", "no mesh"),
    ("-st_shift 2", "-shift"),
    ("-eps_nev 2", "-states"),
    ("-eps_all", "-states"),
    ("-eps_type lapack", "krylovschur"),
    ("-eps_ncv 2", "-eps_ncv 2"),
    ("-degree 5", "to 4"),
    ("-omega 0", "-omega"),
    ("-method power", "shift_invert | inverse_iteration"),
]


@pytest.mark.mpi
@pytest.mark.parametrize(("argv", "said"), BAD)
def test_bad_input_is_refused_with_a_reason(problem, argv, said):
    if argv.startswith(("-st_", "-eps")):
        pytest.importorskip("slepc4py.SLEPc", reason="this PETSc has no slepc4py", exc_type=ImportError)
    words = ["-n", "4", *argv.split()]
    outcome = problem("schrodinger").SCRIPT.execute([*ANALOG, *words])
    assert outcome.code == 2 and said in outcome.message and "allowed" in outcome.message


def test_without_slepc_the_other_method_is_named(problem, monkeypatch):
    problem("schrodinger")
    monkeypatch.setitem(sys.modules, "slepc4py", None)
    outcome = problem("schrodinger").SCRIPT.execute([*LU, "-n", "4"])
    assert outcome.code == 2 and "inverse_iteration" in outcome.message and "slepc4py" in outcome.message
    assert run(problem, "-n 4 -method inverse_iteration").code == 0


@pytest.mark.mpi
def test_a_solve_that_fails_inside_slepc_fails_the_run(problem):
    pytest.importorskip("slepc4py.SLEPc", reason="this PETSc has no slepc4py", exc_type=ImportError)
    outcome = problem("schrodinger").SCRIPT.execute([*ANALOG, "-n", "8", "-ksp_max_it", "1"])
    assert outcome.code == 1 and "did not converge" in outcome.message
    # one, or as many as SLEPc asks for: after any error out of a KSPSolve in the same process PETSc takes every later
    # solve for a nested one, of which it lets DIVERGED_ITS pass
    assert outcome.log.solves["st_"].failures >= 1


@pytest.mark.mpi
@pytest.mark.parametrize("argv", ["-states 2", "-dim 3 -case hydrogen -quadrant", "-mode time -dt 0.1 -t_end 0.4"])
def test_fields_picture_and_reports(problem, comm, shared_tmp_path, argv):
    pytest.importorskip("matplotlib")
    folder = shared_tmp_path / "out"
    run(problem, f"-n 4 -degree 2 {argv}", [*LU[:-2], "-out", str(folder)])
    if comm.rank == 0:
        names = {path.name for path in folder.iterdir()}
        assert names >= {"schrodinger.png", "report.json", "report.html"}
        assert any(name.startswith("fields.") for name in names)
        assert (folder / "schrodinger.png").stat().st_size > 10_000


@pytest.mark.parametrize("zeta", [0.25, 1.0])
def test_levels_and_states_of_the_double_well(problem, zeta):
    problem("schrodinger")
    from analogpde.fem.quantum import razavy

    levels, even, odd = razavy(zeta)
    # Sinc collocation (Colbert & Miller 1992): spectrally accurate, a different way to the same numbers.
    x, h = np.linspace(-4, 4, 241, retstep=True)
    i = np.arange(len(x))
    difference = i[:, None] - i
    with np.errstate(divide="ignore"):
        kinetic = (-1.0) ** difference / (h * difference) ** 2
    np.fill_diagonal(kinetic, np.pi**2 / (6 * h**2))
    potential = 0.5 * (zeta * np.cosh(2 * x) - 3) ** 2
    values, vectors = np.linalg.eigh(kinetic + np.diag(np.minimum(potential, 1e6)))
    assert levels == pytest.approx(values[:3], rel=1e-8)
    for state, vector in zip((even, odd), vectors.T, strict=False):
        assert abs(state(x) @ vector) * math.sqrt(h) == pytest.approx(1, abs=1e-8)


def test_the_box_ends_where_its_walls_do_not_matter(problem):
    problem("schrodinger")
    from analogpde.fem.quantum import TRUNCATION, half_length

    # A wall on either side at L raises the ground state ½ by 2L exp(−L²)/√π; the rule may err by a factor of a few.
    end = half_length(lambda x: 0.5 * x**2, 0.5)
    assert 0.2 < 2 * end * math.exp(-(end**2)) / math.sqrt(math.pi) / 0.5 / TRUNCATION < 5
    # A barrier inside is no wall.
    assert half_length(lambda x: np.where(x < 2, 10.0, 0.0) + np.where(x > 5, 50.0, 0.0), 1.0) > 5
