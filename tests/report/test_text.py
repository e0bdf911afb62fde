"""The report as read on a terminal."""

from __future__ import annotations

import math

from analogpde.cost.ledger import Ledger
from analogpde.refine.record import Step
from analogpde.report import build, to_text
from analogpde.report.words import amount, seconds, with_unit


def line_of(text: str, start: str) -> str:
    """Return the line that begins with `start`."""
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_converged_solve(log, record):
    text = to_text(build(log(record()), {"title": "Heat sink"}, seconds_assemble=2.0))
    assert "Convergence report: Heat sink" in text
    assert "rram128: tile 128, 4-bit cells, programming error 0.01" in text
    assert "4,913 unknowns on 2 ranks" in text
    assert line_of(text, "9 ").split() == ["9", "7.45e-09", "5.36e-08", "+3.0", "1,080"]
    assert line_of(text, "0 ").split() == ["0", "1.00e+00", "-", "-", "0"]
    assert line_of(text, "reason").split() == ["reason", "CONVERGED_RTOL"]
    assert "nothing needs to be done" in text
    assert "9.31e-10   within FP32-equivalent 2⁻²⁴ = 5.96e-08" in line_of(text, "backward error")
    assert "not verified" in line_of(text, "forward error")
    assert line_of(text, "INV shots").split()[2] == "1,080"
    assert "assemble 2.00 s   program 250 ms   solve 500 ms" in text
    assert text.endswith("\nthe solve converged\n")
    assert "!!!!" not in text


def test_no_line_is_longer_than_100_columns(log, record, failed):
    text = to_text(build(log(record(), record(), failed, record(prefix="x" * 30)),
                         {"title": "A title " * 40, "parameters": {f"parameter_{k}": k for k in range(40)}}))
    assert max(len(line) for line in text.splitlines()) == 100


def test_a_failed_solve_stands_out(log, record, failed):
    text = to_text(build(log(record(), failed)))
    assert "!!!! NOT CONVERGED: DIVERGED_BREAKDOWN after 12 iterations" in text
    assert "ABOVE FP32-equivalent" in text and "the tiles are too coarse" in text
    assert text.splitlines()[-1] == "!!!! FAILED: 1 of 2 solves did not converge"


def test_a_digital_preconditioner_cannot_be_mistaken(log, record):
    lu = record(preconditioner="lu", operations=Ledger(host_flops=9))
    text = to_text(build(log(lu)))
    assert "!!!! digital preconditioner 'lu': no tiles took part in these corrections" in text
    assert "NOT USED" in text and "lu (digital)" in text
    assert "all corrections were purely digital: no tiles took part" in text.splitlines()[-1]
    assert "digital" not in to_text(build(log(record()))).replace("digital host", "").replace("digital-to", "")


def test_many_solves_are_summarised(log, record, failed):
    steps = [record(prefix="flow_", iterations=k) for k in (7, 9, 8)]
    text = to_text(build(log(*steps)))
    assert "3 solves, all converged; iterations: min 7, mean 8.0, max 9." in text
    assert text.count("true relative residual") == 1
    text = to_text(build(log(*steps, failed)))
    assert "NOT CONVERGED: 1 of 4 solves; the first of them: DIVERGED_BREAKDOWN after 12 iterations" in text
    assert "4 solves, 1 FAILED; iterations: min 7, mean 9.0, max 12." in text


def test_long_history_says_what_it_leaves_out(log, record):
    text = to_text(build(log(record(iterations=40, factor=0.5))))
    shown = [int(line.split()[0]) for line in text.splitlines() if line[:11].strip().isdigit()]
    assert shown == [*range(8), *range(36, 41)]
    assert "28 iterations not shown" in text
    short = to_text(build(log(record(iterations=14, factor=0.5))))
    assert "not shown" not in short and line_of(short, "14 ").split()[0] == "14"


def test_verified_errors_side_by_side(log, record):
    made = log(record())
    made.solves["heat_"].verified(3.2e-9, 4.1e-6)
    text = to_text(build(made))
    assert "analog 3.20e-09  |  native FP32 4.10e-06  |  FP64: the reference" in text
    assert "within FP32-equivalent 2⁻²³ = 1.19e-07; not above native FP32" in text
    worse = log(record())
    worse.solves["heat_"].verified(5e-6, 4.1e-6)
    assert "ABOVE FP32-equivalent 2⁻²³ = 1.19e-07; ABOVE native FP32" in to_text(build(worse))


def test_results_state_their_outcome(log, record):
    results = [{"name": "T at x", "value": 36.58, "unit": "°C", "expected": 36.6, "tolerance": 0.05,
                "source": "NAFEMS T3"},
               {"name": "T at E", "value": 17.0, "expected": 18.3, "tolerance": 0.1}, {"name": "peak", "value": 80}]
    text = to_text(build(log(record()), {"results": results}))
    joined = " ".join(text.split())
    assert "T at x: 36.58 °C; expected 36.6 °C ± 0.05: within tolerance [NAFEMS T3]" in joined
    assert "T at E: 17; expected 18.3 ± 0.1: OUTSIDE tolerance" in joined
    assert text.splitlines()[-1] == "!!!! the solve converged; 1 of 3 results OUTSIDE tolerance"


def test_answers_have_the_digits_that_their_tolerance_asks_for(log, record):
    fine = {"name": "E", "value": 1.000000234, "expected": 1.0000001, "tolerance": 1e-6}
    text = to_text(build(log(record()), {"results": [fine, {"name": "T", "value": 36.58123456}]}))
    assert "E: 1.0000002; expected 1.0000001 ± 1e-06" in text and "T: 36.5812" in text


def test_values_that_are_not_finite_are_named(log, record):
    broken = record(relative_residual=math.nan, backward_error=math.nan, converged_reason="DIVERGED_NANORINF",
                    history=[Step(0, math.nan, 0.0, 0.0, 0)])
    text = to_text(build(log(broken)))
    assert "not finite" in line_of(text, "residual") and "not finite" in line_of(text, "backward error")
    assert "within" not in text


def test_empty_log_says_what_to_try(log):
    text = to_text(build(log()))
    assert text.splitlines()[-1] == "!!!! no solve was recorded: did the program run with -ksp_type analog?"


def test_a_title_cannot_drive_the_terminal(log, record):
    text = to_text(build(log(record()), {"title": "red \x1b[31m title\nsecond line"}))
    assert "\x1b" not in text and "red \N{REPLACEMENT CHARACTER}[31m title second line" in text


def test_estimates_say_what_they_are(log, record):
    text = to_text(build(log(record())))
    for part in ("estimated cost of 1 solve, prefix 'heat_'", "not measurements of a chip", "write–verify pulses",
                 "against GPU", "counts modelled", "against SRAM", "over the ranges"):
        assert part in " ".join(text.split())


def test_a_chip_of_a_later_version_still_has_a_name(log, record):
    made = log(record())
    made.chip["memristance"] = 3
    assert "rram128: a plausible near-term foundry chip" in to_text(build(made))


def test_a_missing_chip_is_not_taken_for_missing_tiles(log, record):
    tiles, digital = log(record()), log(record(preconditioner="lu", operations=Ledger()))
    tiles.chip.clear()
    digital.chip.clear()
    assert line_of(to_text(build(tiles)), "chip").split(maxsplit=1)[1] == "not recorded"
    assert "none: no tile took part in this run" in line_of(to_text(build(digital)), "chip")


def test_numbers():
    assert [seconds(value) for value in (0, 0.00123, 0.25, 0.9999, 1.5, 42.34, 1234.5)] == [
        "0 s", "1.23 ms", "250 ms", "1.00 s", "1.50 s", "42.3 s", "1,234 s"]
    assert [amount("host_bytes", value) for value in (0, 999, 1500, 5.85e9)] == ["0 B", "999 B", "1.5 kB", "5.85 GB"]
    assert amount("host_flops", 2 * 10**18) == "2e+03 Pflop" and amount("inv_shots", 1234567) == "1,234,567"
    assert [with_unit(value, "S") for value in (35e-6, 1e-9, 2.0)] == ["35 µS", "1 nS", "2 S"]
