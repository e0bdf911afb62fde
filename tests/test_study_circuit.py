"""The study of the circuit: its tables say that emulator, nodal solver and ngspice agree."""

from pathlib import Path

import study_circuit as study

from analogpde.tile.circuit import have_ngspice

ROOT = Path(__file__).parents[1]


def test_table_of_agreement():
    rows = [row.strip("| ").split(" | ") for row in study.agreement().splitlines()[2:]]
    assert len(rows) == 10
    for _, ignored, nodal, spice in rows:
        assert float(ignored) > 1e-3
        assert float(nodal) < 1e-9
        assert (float(spice) < 1e-6) if have_ngspice() else spice == "—"


def test_the_page_holds_what_the_script_writes():
    page = (ROOT / "docs" / "circuit.md").read_text(encoding="utf-8")
    written = page.partition("<!-- study: begin -->")[2].partition("<!-- study: end -->")[0]
    for name in study.EFFECTS:
        assert f"| {name} |" in written
    assert (ROOT / "docs" / "images" / "circuit_study.png").stat().st_size < 200_000
