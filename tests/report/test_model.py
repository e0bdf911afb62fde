"""What `build` makes of a log, and what the schema says of it."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analogpde.cost.ledger import Ledger
from analogpde.errors import AnalogError, InvalidInput
from analogpde.refine.record import Step
from analogpde.report import Report, build, validate
from analogpde.report.model import HistoryRow, Solve, plain, within_tolerance
from analogpde.report.schema import check, schema

TOP_LEVEL = ["schema", "problem", "options", "chip", "ranks", "unknowns", "solves", "totals", "environment", "cost"]


def test_one_converged_solve(log, record):
    one = record()
    report = build(log(one), {"name": "heat"}, seconds_assemble=1.5)
    (solve,) = report.solves
    assert (solve.prefix, solve.count, solve.failures, solve.iterations) == ("heat_", 1, 0, 9)
    assert solve.converged_reason == "CONVERGED_RTOL" and solve.advice == one.advice
    assert solve.relative_residual == one.relative_residual and solve.backward_error == one.backward_error
    assert solve.history[3] == HistoryRow(3, 0.125**3, 0.9 * 0.125**2, 3.0, 360)
    assert not solve.digital and not solve.verified and solve.forward_error is None
    assert report.unknowns == 4913 and report.ranks == 2 and report.chip["name"] == "rram128"
    totals = report.as_dict()["totals"]
    assert totals["inv_shots"] == 1080 and totals["seconds_assemble"] == 1.5
    assert (totals["seconds_program"], totals["seconds_solve"]) == (0.25, 0.5)


def test_names_that_other_tools_read_are_exact(log, record):
    data = build(log(record())).as_dict()
    assert list(data) == TOP_LEVEL and data["schema"] == "analogpde-report/1"
    for name in ("prefix", "count", "iterations", "converged_reason", "advice", "relative_residual", "backward_error",
                 "forward_error", "forward_error_fp32", "history", "seconds_setup", "seconds_solve"):
        assert name in data["solves"][0]
    assert list(data["solves"][0]["history"][0]) == ["iteration", "relative_residual", "correction", "bits_gained",
                                                      "inv_shots"]


def test_schema_describes_every_field_and_no_other(log, record):
    data, rules = build(log(record())).as_dict(), schema()
    assert list(rules["properties"]) == list(data)
    for name, kind in (("solve", Solve), ("history_row", HistoryRow), ("operations", Ledger)):
        assert set(rules["$defs"][name]["properties"]) == {item.name for item in dataclasses.fields(kind)}
        # a report of an earlier writer lacks what came later, and is still read
        later = {"solve": {"tile_use"}, "operations": {
            "tiles_multiplexed", "inv_repeats", "settling_seconds", "inv_products", "amplifier_settlings", "rounds",
            "round_settlings", "rank_bytes", "tiles_replaced", "mvm_slices_saved", "write_pulses",
            "pulses_in_turn", "mvm_rounds"}}
        optional = later.get(name, set())
        assert set(rules["$defs"][name]["required"]) == {item.name for item in dataclasses.fields(kind)} - optional
    assert list(rules["$defs"]["totals"]["properties"]) == list(data["totals"])


def test_estimates_are_of_solves_that_converged_on_tiles(log, record, failed):
    cost = build(log(record(), record(prefix="small_", iterations=2))).cost
    assert cost["prefix"] == "heat_"
    assert cost["right_hand_sides"] == 1
    assert cost["energy"]["hbm"]["host"] > cost["energy"]["sram"]["host"] > 0
    assert build(log(failed)).cost is None
    assert build(log(record(preconditioner="lu", operations=Ledger()))).cost is None
    old = build(log(record())).as_dict()
    del old["cost"]
    assert Report.from_dict(old).cost is None, "a report of an earlier writer"


def test_many_time_steps_are_one_entry(log, record):
    report = build(log(*[record(iterations=k) for k in (7, 9, 8, 12, 7)]))
    (solve,) = report.solves
    assert (solve.count, solve.iterations, solve.iterations_min, solve.iterations_total) == (5, 12, 7, 43)
    assert solve.iterations_mean == pytest.approx(8.6)
    assert len(solve.history) == 13
    assert solve.seconds_solve == pytest.approx(2.5)
    assert solve.relative_residual == pytest.approx(0.125**7), "the largest residual is that of the shortest solve"
    assert report.totals.operations.inv_shots == 120 * 43


def test_a_failed_solve_is_the_one_described(log, record, failed):
    report = build(log(record(prefix="flow_", iterations=30, factor=0.5), failed, record()))
    solve, other = report.solves
    assert (solve.prefix, solve.count, solve.failures) == ("flow_", 2, 1)
    assert solve.converged_reason == "DIVERGED_BREAKDOWN" and solve.history[-1].iteration == 12
    assert solve.iterations == 30, "iterations is the largest of all"
    assert other.prefix == "heat_" and other.converged
    assert (report.failures, report.count) == (1, 3)


def test_digital_means_that_no_tile_took_part(log, record):
    lu = record(prefix="lu_", preconditioner="lu", operations=Ledger(host_flops=9))
    nested = record(prefix="mg_", preconditioner="mg")
    assert [solve.digital for solve in build(log(lu, nested)).solves] == [True, False]
    assert not build(log(record(operations=Ledger()))).solves[0].digital, "PC analog with nothing to correct"


def test_verified_errors(log, record):
    both, fp64_only = log(record()), log(record())
    both.solves["heat_"].verified(3e-8, 4e-6)
    fp64_only.solves["heat_"].verified(3e-8, None)
    (one,), (other,) = build(both).solves, build(fp64_only).solves
    assert (one.verified, one.forward_error, one.forward_error_fp32) == (True, 3e-8, 4e-6)
    assert (other.verified, other.forward_error, other.forward_error_fp32) == (True, 3e-8, None)


def test_residual_of_the_fp32_equivalent_backward_error(log, record):
    (solve,) = build(log(record(relative_residual=8e-9, backward_error=1e-9))).solves
    assert solve.relative_residual_fp32 == pytest.approx(8 * 2.0**-24)
    (solve,) = build(log(record(relative_residual=0.0, backward_error=0.0))).solves
    assert solve.relative_residual_fp32 is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_become_null(log, record, value):
    broken = record(relative_residual=value, backward_error=value, converged_reason="DIVERGED_NANORINF",
                    history=[Step(0, 1.0, 0.0, 0.0, 0), Step(1, value, value, value, 120)])
    report = build(log(broken), {"results": [{"name": "T", "value": value}]})
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["solves"][0]["history"][1]["relative_residual"] is None
    assert report.solves[0].relative_residual is None and report.solves[0].backward_error is None
    assert report.problem["results"][0]["value"] is None
    validate(report.as_dict())


def test_a_nan_is_not_hidden_by_a_later_good_solve(log, record):
    broken = record(relative_residual=math.nan, backward_error=math.nan, converged_reason="DIVERGED_NANORINF")
    (solve,) = build(log(broken, record())).solves
    assert solve.failures == 1 and solve.relative_residual is None


def test_plain_takes_what_a_problem_script_has_at_hand():
    numpy = pytest.importorskip("numpy")
    given: dict[Any, Any] = {
        "scalar": numpy.float64(1.5), "count": numpy.int32(3), "array": numpy.array([1.0, math.nan]),
        "path": Path("a/b"), "tuple": (1, 2), 4: True, "ledger": Ledger(inv_shots=2), "odd": 1 + 2j,
    }
    result = plain(given)
    assert result["ledger"].pop("inv_shots") == 2 and set(result.pop("ledger").values()) == {0}
    assert result == {"scalar": 1.5, "count": 3, "array": [1.0, None], "path": "a/b", "tuple": [1, 2], "4": True,
                      "odd": "(1+2j)"}
    assert type(result["scalar"]) is float and type(result["count"]) is int


@pytest.mark.parametrize(("result", "expected"), [
    ({"value": 36.58, "expected": 36.6, "tolerance": 0.05}, True),
    ({"value": 36.5, "expected": 36.6, "tolerance": 0.05}, False),
    ({"value": None, "expected": 36.6, "tolerance": 0.05}, False),
    ({"value": 36.58, "expected": 36.6}, None),
    ({"value": 36.58, "expected": None, "tolerance": None}, None),
])
def test_within_tolerance(result, expected):
    assert within_tolerance(result) is expected


def test_environment(log, record):
    environment = build(log(record())).environment
    assert environment["versions"]["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert set(environment["versions"]) == {"analogpde", "python", "numpy", "petsc", "dolfinx"}
    assert environment["date"][10] == "T" and "processors" in environment["machine"] and environment["command"]


def test_full_report_validates_and_comes_back(log, record, failed):
    report = build(log(record(), failed), {
        "name": "heat", "title": "Heat", "parameters": {"n": 16}, "files": ["a.xdmf"],
        "pictures": ["a.png", {"path": "b.png", "caption": "T"}],
        "results": [{"name": "T", "value": 36.58, "unit": "°C", "expected": 36.6, "tolerance": 0.05, "source": "T3"}],
    })
    validate(report.as_dict())
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


DAMAGE = [
    (lambda data: data.pop("chip"), "report.chip"),
    (lambda data: data.update(extra=1), "report.extra"),
    (lambda data: data.update(ranks=0), "report.ranks"),
    (lambda data: data.update(ranks=True), "report.ranks"),
    (lambda data: data["solves"][0].update(iterations="9"), "report.solves[0].iterations"),
    (lambda data: data["solves"][0]["history"][2].update(correction="big"), "report.solves[0].history[2].correction"),
    (lambda data: data["solves"][0]["operations"].pop("mvm_slices"), "report.solves[0].operations.mvm_slices"),
    (lambda data: data["totals"].update(seconds_solve=-1), "report.totals.seconds_solve"),
    (lambda data: data["options"].update(n=3), "report.options.n"),
    (lambda data: data["environment"].pop("date"), "report.environment.date"),
    (lambda data: data["problem"].update(results=[{"value": 1}]), "report.problem.results[0].name"),
    (lambda data: data["problem"].update(pictures=[{}]), "report.problem.pictures[0].path"),
]


@pytest.mark.parametrize(("damage", "place"), DAMAGE, ids=[place for _, place in DAMAGE])
def test_damaged_data_is_refused_by_both_checks(log, record, damage, place):
    data = copy.deepcopy(build(log(record())).as_dict())
    validate(data)
    check(data)
    damage(data)
    with pytest.raises(InvalidInput) as caught:
        check(data)
    assert caught.value.what == place
    with pytest.raises(InvalidInput, match=r"^report"):
        validate(data)


def test_a_later_writers_fields_are_ignored(log, record):
    report = build(log(record()))
    data = copy.deepcopy(report.as_dict())
    data["solves"][0]["energy"] = 1.0
    data["totals"]["energy"] = 1.0
    validate(data)
    assert Report.from_dict(data) == report


def test_build_refuses_a_problem_that_the_formats_cannot_show(log, record):
    with pytest.raises(InvalidInput, match=r"report\.problem\.results: got 'hot'; allowed: array"):
        build(log(record()), {"results": "hot"})


def test_validate_says_what_to_install(log, record, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(AnalogError, match="pip install jsonschema"):
        validate(build(log(record())).as_dict())


def test_import_is_light():
    heavy = ("matplotlib", "mpi4py", "petsc4py", "dolfinx", "jinja2", "jsonschema")
    code = f"import sys, analogpde.report; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
