"""What is remembered of solves: sums, the worst one, and what is not a number."""

import math

import pytest

from analogpde.cost import Ledger
from analogpde.refine.record import SolveLog, SolveRecord, SolveSummary, Step, larger
from analogpde.refine.status import Status

NAN = math.nan


def record(iterations=5, reason="CONVERGED_RTOL", **values):
    base = {"prefix": "heat_", "unknowns": 10, "iterations": iterations, "converged_reason": reason, "advice": "…",
            "relative_residual": 1e-9, "backward_error": 1e-10, "preconditioner": "analog"}
    return SolveRecord(**{**base, **values})


@pytest.mark.parametrize(("a", "b", "expected"), [
    (1.0, 2.0, 2.0), (2.0, 1.0, 2.0), (1.0, 1.0, 1.0), (NAN, 1.0, NAN), (1.0, NAN, NAN), (NAN, NAN, NAN),
    (NAN, math.inf, NAN), (math.inf, NAN, NAN), (math.inf, 1.0, math.inf), (0.0, 0.0, 0.0),
])
def test_not_a_number_is_the_worst(a, b, expected):
    assert larger(a, b) == expected or (math.isnan(larger(a, b)) and math.isnan(expected))


@pytest.mark.parametrize(("reason", "converged"), [
    ("CONVERGED_RTOL", True), ("CONVERGED_ITS", True), ("DIVERGED_ITS", False), ("DIVERGED_NANORINF", False),
    ("", False),
])
def test_converged_by_petsc_s_name(reason, converged):
    assert record(reason=reason).converged == converged


# Iterations and reason of each solve in turn (C converged, D diverged), and which one is the worst.
WORST = [
    ([(5, "C")], 0), ([(5, "C"), (7, "C"), (6, "C")], 1), ([(5, "C"), (5, "C")], 0),
    ([(9, "C"), (2, "D"), (30, "C")], 1), ([(2, "D"), (50, "D"), (60, "C")], 0), ([(3, "C"), (1, "D"), (9, "D")], 1),
]


@pytest.mark.parametrize(("solves", "worst"), WORST)
def test_worst_is_the_first_failure_or_the_longest(solves, worst):
    records = [record(n, "CONVERGED_RTOL" if kind == "C" else "DIVERGED_ITS") for n, kind in solves]
    log = SolveLog()
    for r in records:
        log.add(r)
    summary = log.solves["heat_"]
    assert summary.worst is records[worst]
    assert summary.count == len(solves)
    assert summary.failures == sum(kind == "D" for _, kind in solves)
    iterations = [n for n, _ in solves]
    assert (summary.iterations_total, summary.iterations_min, summary.iterations_max) == (
        sum(iterations), min(iterations), max(iterations))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_errors_are_the_largest_seen_and_times_and_counts_are_sums(order):
    records = [
        record(relative_residual=1e-9, backward_error=3e-9, seconds_setup=1.0, seconds_solve=0.5,
               operations=Ledger(inv_shots=10, host_flops=3)),
        record(relative_residual=4e-9, backward_error=1e-9, seconds_solve=0.25, operations=Ledger(inv_shots=20)),
        record(relative_residual=2e-9, backward_error=2e-9, seconds_solve=0.125, operations=Ledger(cells_written=7)),
    ]
    log = SolveLog()
    for k in order:
        log.add(records[k])
    summary = log.solves["heat_"]
    assert (summary.relative_residual, summary.backward_error) == (4e-9, 3e-9)
    assert (summary.seconds_setup, summary.seconds_solve) == (1.0, 0.875)
    assert summary.operations == log.totals == Ledger(inv_shots=30, host_flops=3, cells_written=7)
    assert records[0].operations == Ledger(inv_shots=10, host_flops=3)  # a solve's own counts stay its own


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_residual_that_is_not_a_number_stays_in_the_summary(position):
    log = SolveLog()
    for k in range(3):
        bad = k == position
        log.add(record(relative_residual=NAN if bad else 1e-9, backward_error=NAN if bad else 1e-9,
                       reason="DIVERGED_NANORINF" if bad else "CONVERGED_RTOL"))
    summary = log.solves["heat_"]
    assert math.isnan(summary.relative_residual)
    assert math.isnan(summary.backward_error)
    assert math.isnan(summary.worst.relative_residual)
    assert summary.failures == 1


def test_prefixes_are_kept_apart():
    log = SolveLog()
    for prefix, count in (("", 2), ("heat_", 3), ("flow_", 1)):
        for _ in range(count):
            log.add(record(prefix=prefix, operations=Ledger(inv_shots=1)))
    assert {prefix: summary.count for prefix, summary in log.solves.items()} == {"": 2, "heat_": 3, "flow_": 1}
    assert log.totals.inv_shots == 6


def test_only_the_worst_record_is_kept():
    log = SolveLog()
    for k in range(1000):
        log.add(record(iterations=3 if k != 500 else 4, history=[Step(0, 1.0, 0.0, 0.0, 0)]))
    assert log.solves["heat_"].count == 1000
    assert log.solves["heat_"].worst.iterations == 4


def test_verified_errors_are_the_largest_and_may_be_missing():
    summary = SolveSummary(worst=record())
    assert (summary.forward_error, summary.forward_error_fp32) == (None, None)
    summary.verified(1e-8, None)
    assert (summary.forward_error, summary.forward_error_fp32) == (1e-8, None)
    summary.verified(3e-9, 2e-7)
    assert (summary.forward_error, summary.forward_error_fp32) == (1e-8, 2e-7)
    summary.verified(0.0, None)
    assert (summary.forward_error, summary.forward_error_fp32) == (1e-8, 2e-7)
    summary.verified(NAN, NAN)
    summary.verified(1.0, 1.0)
    assert math.isnan(summary.forward_error)
    assert math.isnan(summary.forward_error_fp32)


@pytest.mark.parametrize("status", Status, ids=lambda s: s.name)
def test_every_end_has_petsc_s_sign_and_advice(status):
    assert (status.code > 0) == status.name.startswith("CONVERGED")
    assert (status.code < 0) == status.name.startswith("DIVERGED")
    assert status.advice.endswith(".")
    assert len(status.advice) > 30


def test_ends_are_told_apart():
    assert len(Status) == len({status.value for status in Status}) == len({status.advice for status in Status})
    # PETSc's numbers
    codes = {status.name: status.code for status in Status}
    assert codes["CONVERGED_RTOL"] == codes["CONVERGED_FP32"] == 2
    assert (codes["CONVERGED_ATOL"], codes["CONVERGED_ITS"]) == (3, 4)
    assert (codes["DIVERGED_ITS"], codes["DIVERGED_DTOL"], codes["DIVERGED_STAGNATED"]) == (-3, -4, -5)
    assert (codes["DIVERGED_NANORINF"], codes["DIVERGED_INDEFINITE"], codes["DIVERGED_PC_FAILED"]) == (-9, -10, -11)
