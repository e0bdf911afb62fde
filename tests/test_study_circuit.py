"""The study of the circuit: its tables say that emulator, nodal solver and ngspice agree."""

import importlib.util
import sys
from pathlib import Path

from analogpde.tile.circuit import have_ngspice

ROOT = Path(__file__).parents[1]


def load():
    sys.path.append(str(ROOT / "scripts"))
    specification = importlib.util.spec_from_file_location("study_circuit", ROOT / "scripts" / "study_circuit.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_table_of_agreement():
    rows = [row.strip("| ").split(" | ") for row in load().agreement().splitlines()[2:]]
    assert len(rows) == 10
    for _, ignored, nodal, spice in rows:
        assert float(ignored) > 1e-3
        assert float(nodal) < 1e-9
        assert (float(spice) < 1e-6) if have_ngspice() else spice == "—"


def test_the_page_holds_what_the_script_writes():
    page = (ROOT / "docs" / "circuit.md").read_text(encoding="utf-8")
    written = page.partition("<!-- study: begin -->")[2].partition("<!-- study: end -->")[0]
    for name in load().EFFECTS:
        assert f"| {name} |" in written
    assert (ROOT / "docs" / "images" / "circuit_study.png").stat().st_size < 200_000
