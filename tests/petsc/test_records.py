"""What is remembered of a solve: records, operations, views; and that the same solve gives the same again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analogpde.cost import Ledger

pytestmark = pytest.mark.mpi
REASONS = {2: "CONVERGED_RTOL", -3: "DIVERGED_ITS", -5: "DIVERGED_BREAKDOWN"}


@pytest.fixture
def session(PETSc):
    """The session of this test."""
    from analogpde.petsc import session

    return session


def everywhere(done, value):
    """What `value` is on each rank."""
    return done.matrix.getComm().tompi4py().allgather(value)


def plain(record):
    """A record without its clock times."""
    values = dataclasses.asdict(record)
    assert values.pop("seconds_solve") >= 0
    assert values.pop("seconds_setup") >= 0
    return values


@pytest.mark.parametrize("given", [
    {}, {"ksp_analog_accelerator": "none"}, {"pc_analog_levels": 1}, {"ksp_analog_residual": "sliced"},
    {"pc_type": "jacobi"}, {"ksp_max_it": 2}, {"analog_tile_size": 16}])
def test_records_are_complete_and_equal_on_all_ranks(solve, gallery, session, given):
    done = solve(gallery.poisson(20, 20), prefix="r_", prepare=lambda ksp: ksp.setConvergenceHistory(), **given)
    summary = session().solves["r_"]
    record = summary.worst
    records = everywhere(done, plain(record))
    assert all(other == records[0] for other in records)
    assert (record.prefix, record.unknowns, record.iterations) == ("r_", 400, done.iterations)
    assert record.converged_reason == REASONS[done.reason]
    assert record.converged == (done.reason > 0)
    assert len(record.advice) > 20
    assert record.preconditioner == given.get("pc_type", "analog")
    assert record.relative_residual == pytest.approx(done.relative_residual, rel=1e-6)
    assert record.backward_error == pytest.approx(done.backward_error, rel=1e-6)  # the norm is the largest row's
    history = record.history
    assert [step.iteration for step in history] == list(range(done.iterations + 1))
    norms = np.array(done.ksp.getConvergenceHistory())
    assert [step.relative_residual for step in history] == pytest.approx(list(norms / np.linalg.norm(done.b)))
    assert [step.bits_gained for step in history[1:]] == pytest.approx(list(np.log2(norms[:-1] / norms[1:])))
    assert history[0].bits_gained == history[0].correction == 0.0
    assert all(step.correction > 0 for step in history[1:])
    assert (summary.count, summary.failures) == (1, int(done.reason < 0))


@pytest.mark.parametrize("given", [{}, {"ksp_analog_accelerator": "fgmres"}, {"ksp_analog_accelerator": "none"},
                                   {"pc_analog_levels": 1}, {"analog_tile_size": 16}])
def test_operations_add_up(solve, gallery, session, given):
    done = solve(gallery.poisson(20, 20), prefix="r_", **given)
    record = session().solves["r_"].worst
    levels = [level for level in done.analog._levels if level is not None]
    fine, coarse = (levels, []) if levels[-1].tiles > 1 else (levels[:-1], levels[-1:])
    visits = 2 if len(done.analog._levels) > 1 else 1  # V(1,1): before and after the coarse correction

    def total(value):
        return sum(everywhere(done, value))

    shots = visits * sum(level.tiles for level in fine) + len(coarse)
    lines_in = sum(visits * total(level.bank.lines) for level in fine)
    lines_in += sum(total(level.bank.lines) for level in coarse)
    lines_out = sum(visits * total(int(level.bank.kept.sum())) for level in fine)
    lines_out += sum(total(int(level.bank.kept.sum())) for level in coarse)
    n = record.iterations
    operations = record.operations
    # the first solve with a matrix has asked at first whether it is nearly singular: three corrections, or a search
    searched, rest = divmod(operations.inv_shots - n * shots, shots)
    assert rest == 0
    assert searched == 3 or (searched > 3 and "pc_analog_levels" in given)
    assert operations.dac_conversions == (n + searched) * lines_in
    assert operations.adc_conversions == (n + searched) * lines_out
    assert [step.inv_shots for step in record.history] == [k * shots for k in range(n + 1)]
    # every unknown of the finest level is read once a visit, border lines are not read
    assert lines_out >= visits * 400
    assert operations.mvm_slices == 0
    assert operations.tiles_programmed - operations.tiles_reprogrammed == sum(level.tiles for level in levels)
    assert operations.cells_written > 0
    # the residual of each iterate, the initial guess included: 2 flops and 12 bytes an entry at least
    assert operations.host_flops >= 2 * done.whole.nnz * (n + 1)
    assert operations.host_bytes >= 12 * done.whole.nnz * (n + 1)

    done.ksp.solve(done.rhs, done.solution)
    summary = session().solves["r_"]
    both, second = summary.operations, summary.iterations_total - n
    assert summary.count == 2
    assert both.inv_shots == (n + searched + second) * shots
    assert (both.tiles_programmed, both.cells_written) == (operations.tiles_programmed, operations.cells_written)


def test_a_set_up_inside_a_solve_is_counted_once(solve, gallery, session):
    done = solve(gallery.poisson(20, 20), prefix="r_")
    once = session().solves["r_"].operations.cells_written
    for _ in range(2):
        done.matrix.scale(2.0)  # the scaled blocks are the same, and so are the cells
        done.ksp.solve(done.rhs, done.solution)  # without KSPSetOperators: PETSc sets up at the first application
    done.ksp.solve(done.rhs, done.solution)
    summary = session().solves["r_"]
    assert done.analog.programmings == 3
    tiles = sum(level.tiles for level in done.analog._levels)
    assert summary.operations.tiles_programmed - summary.operations.tiles_reprogrammed == 3 * tiles
    # an unstable tile is written again, with errors that are different each time
    assert 3 * once / 2 <= summary.operations.cells_written <= 3 * once * 2
    assert summary.seconds_setup > 0


def test_slices_of_the_residual_are_counted(solve, gallery, session):
    done = solve(gallery.poisson(20, 20), prefix="r_", ksp_analog_residual="sliced", ksp_analog_residual_bits=18,
                 ksp_rtol=1e-2)
    assert done.reason == 2
    record = session().solves["r_"].worst
    # bits/3 slices of the matrix, each with bits/3 of the vector, for every block of 128 × 128 that holds anything;
    # one product for each correction of the sliced residual and one for each direction of the accelerator
    rows, columns = done.whole.nonzero()
    begin = done.matrix.getOwnershipRange()[0]
    mine = (rows >= begin) & (rows < done.matrix.getOwnershipRange()[1])
    blocks = sum(everywhere(done, len(set(zip(rows[mine] // 128, columns[mine] // 128, strict=True)))))
    assert record.operations.mvm_slices == 6 * 6 * blocks * 2 * record.iterations
    assert "sliced residual (18 bits) differs from the true one by a backward error of" in record.advice


def test_bytes_between_ranks(solve, gallery, session, PETSc):
    done = solve(gallery.poisson(20, 20), prefix="r_")
    operations, ranks = session().solves["r_"].worst.operations, PETSc.COMM_WORLD.size
    if ranks == 1:
        assert operations.rank_bytes == 0
        return
    # each product and each application of the tiles needs at least one grid line of 20 unknowns from every neighbour
    borders = 2 * (ranks - 1)
    assert operations.rank_bytes >= 8 * 20 * borders * done.ksp.getIterationNumber()
    assert operations.rank_bytes < 8 * done.matrix.getSize()[0] * ranks * 100 * done.ksp.getIterationNumber()


def test_totals_are_the_sum_over_prefixes(solve, gallery, session):
    for prefix in ("a_", "b_", "a_"):
        solve(gallery.poisson(12, 12), prefix=prefix)
    solves = session().solves
    assert {prefix: summary.count for prefix, summary in solves.items()} == {"a_": 2, "b_": 1}
    total = Ledger()
    for summary in solves.values():
        total.add(summary.operations)
    assert session().totals.as_dict() == pytest.approx(total.as_dict(), rel=1e-12)
    assert session().chip["name"] == "rram128"


@pytest.mark.parametrize("given", [
    {"pc_type": "analog"}, {"pc_type": "bjacobi", "sub_pc_type": "analog"},
    {"pc_type": "bjacobi", "sub_ksp_type": "analog", "sub_ksp_rtol": 1e-2},
    {"pc_type": "ksp", "ksp_ksp_type": "analog", "ksp_ksp_rtol": 1e-2},
    {"pc_type": "ksp", "ksp_ksp_type": "analog", "ksp_ksp_norm_type": "none", "ksp_ksp_max_it": 2},
    {"pc_type": "gamg", "pc_gamg_coarse_eq_limit": 30, "mg_levels_ksp_type": "richardson", "mg_levels_ksp_max_it": 1,
     "mg_levels_pc_type": "analog"},
    {"ksp_analog_residual": "sliced"}])
def test_totals_are_what_the_machine_has_done_wherever_tiles_are(PETSc, solve, gallery, session, given):
    from analogpde.petsc import log

    before = log.machine + Ledger()
    done = solve(gallery.poisson(20, 20), prefix="o_", **given)
    for _ in range(2):
        done.matrix.scale(2.0)
        done.ksp.solve(done.rhs, done.solution)
    done.ksp.solve(done.rhs, done.solution)
    spent = log.reduce(PETSc.COMM_WORLD.tompi4py(), log.machine - before)
    assert spent.cells_written > 0
    # differences of sums that grow with the process: FP64 rounding of what is no count
    assert session().totals.as_dict() == pytest.approx(spent.as_dict(), rel=1e-10)
    assert session().solves["o_"].operations.as_dict() == pytest.approx(spent.as_dict(), rel=1e-10)


def test_a_digital_preconditioner_shoots_no_tile(solve, gallery, session):
    solve(gallery.poisson(12, 12), prefix="d_", pc_type="jacobi")
    operations = session().solves["d_"].operations
    assert (operations.inv_shots, operations.cells_written, operations.adc_conversions) == (0, 0, 0)


def test_solvers_on_a_part_of_the_ranks_are_not_recorded_but_work(PETSc, solve, gallery, session, distribute, scatter):
    world = PETSc.COMM_WORLD.tompi4py()
    part = world.Split(color=0 if world.rank < max(1, world.size - 1) else 1, key=world.rank)
    matrix = distribute(gallery.poisson(12, 12), comm=PETSc.Comm(part))
    done = solve(gallery.poisson(12, 12), matrix=matrix)
    done.assert_fp32()
    assert len(session().solves) == (world.size == 1)
    done.ksp.destroy()
    matrix.destroy()
    for vector in (done.rhs, done.solution):
        vector.destroy()
    PETSc.garbage_cleanup(PETSc.Comm(part))
    part.Free()


# ---- the same again ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chip", ["pku2025", "rram128", "sram64"])
def test_the_same_solve_gives_the_same_bits(solve, gallery, chip):
    first, second = (solve(gallery.poisson(20, 20), analog_chip=chip, analog_seed=3) for _ in range(2))
    assert np.array_equal(first.x, second.x)
    assert first.iterations == second.iterations


def test_set_ups_do_not_depend_on_which_message_comes_first(solve, gallery):
    # three ranks and more add up what two others send
    def coarse():
        done = solve(gallery.poisson(16, 16), analog_chip="ideal", ksp_max_it=1)
        return done.analog._owned[-1].getValuesCSR()[2]

    first = coarse()
    same = all(np.array_equal(first, coarse()) for _ in range(12))
    assert same


@pytest.mark.parametrize(("one", "other"), [
    ({"analog_seed": 3}, {"analog_seed": 4}), ({"prefix": "a_"}, {"prefix": "b_"})])
def test_another_seed_and_another_prefix_draw_other_noise(solve, gallery, one, other):
    first, second = (solve(gallery.poisson(20, 20), pc_analog_levels=1, **given) for given in (one, other))
    assert not np.array_equal(first.x, second.x)
    inverse = [done.analog._levels[0].bank.factors.data for done in (first, second)]
    assert inverse[0].size == 0 or not np.array_equal(*inverse)  # programming errors
    second.assert_fp32()


def test_the_second_solve_sees_other_read_noise(solve, gallery):
    done = solve(gallery.poisson(20, 20), analog_programming_error="none")
    x = done.x
    done.ksp.solve(done.rhs, done.solution)
    done.__dict__.pop("x")
    assert not np.array_equal(x, done.x)


def test_an_ideal_chip_repeats_itself(solve, gallery):
    done = solve(gallery.poisson(20, 20), analog_chip="ideal")
    x = done.x
    done.ksp.solve(done.rhs, done.solution)
    done.__dict__.pop("x")
    assert np.array_equal(x, done.x)


# ---- views ------------------------------------------------------------------------------------------------------

def view(PETSc, done, path):
    """What -ksp_view prints."""
    viewer = PETSc.Viewer().createASCII(str(path), comm=done.ksp.getComm())
    done.ksp.view(viewer)
    viewer.destroy()
    done.matrix.getComm().tompi4py().Barrier()
    return path.read_text()


def test_view(PETSc, solve, gallery, shared_tmp_path):
    done = solve(gallery.poisson(20, 20), analog_chip="pku2025", analog_seed=9)
    text = view(PETSc, done, shared_tmp_path / "view.txt")
    levels = done.analog._levels
    for line in (
        "type: analog", "iterative refinement, residual digital, accelerator auto",
        "target: FP32-equivalent (",
        "chip pku2025: tile 128, 3-bit cells", "seed 9",
        f"level 0: 400 unknowns, 4.8 entries a row, {levels[0].tiles} tiles",
        f"level 1 (coarsest): {levels[1].size} unknowns", "one tile", "operator complexity 1."):
        assert line in text, line
    assert "digital LU" not in text
    assert "corrections by PC" not in text


@pytest.mark.parametrize(("given", "line"), [
    ({"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 30}, "residual sliced in 30 bits"),
    ({"ksp_analog_accelerator": "none"}, "accelerator none"),
    ({"pc_type": "jacobi"}, "corrections by PC 'jacobi', not by PC analog"),
    ({"pc_analog_levels": 2, "analog_tile_size": 8}, "(coarsest): "),
    ({"analog_chip": "ideal"}, "chip ideal")])
def test_view_of_a_choice(PETSc, solve, gallery, shared_tmp_path, given, line):
    done = solve(gallery.poisson(12, 12), **given)
    text = view(PETSc, done, shared_tmp_path / "view.txt")
    assert line in text
    assert ("digital LU on every rank" in text) == ("analog_tile_size" in given)


def test_view_before_the_set_up(PETSc, distribute, gallery, shared_tmp_path):
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setType("analog")
    path = shared_tmp_path / "view.txt"
    viewer = PETSc.Viewer().createASCII(str(path), comm=PETSc.COMM_WORLD)
    ksp.view(viewer)
    viewer.destroy()
    PETSc.COMM_WORLD.tompi4py().Barrier()
    assert "not set up yet" in path.read_text()
    assert "not set up yet" in repr(ksp.getPC().getPythonContext())
