"""Record what badcrossbar computes for crossbars with resistive wires: the fixture of tests/tile/test_circuit.py.

    pip install --no-deps badcrossbar==1.1.0 pathvalidate sigfig
    python scripts/record_badcrossbar.py

badcrossbar (Joksas and Mehonic, SoftwareX 2020, MIT licence) asks for pycairo, which pip builds from C, for its
pictures. So it is no dependency of the tests: they compare with tests/tile/data/badcrossbar.json and, where it can be
imported, with it too.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "tile" / "data" / "badcrossbar.json"
CASES = (("8 × 6", 8, 6, 3.0, 3.0), ("16 × 16", 16, 16, 1.73, 1.73), ("12 × 20, unequal wires", 12, 20, 5.0, 0.5))


def inputs(rows: int, columns: int) -> tuple[Any, Any]:
    """Return conductances in S, shape (rows, columns), and voltages of the columns."""
    rng = np.random.default_rng(100 * rows + columns)
    return rng.uniform(1e-6, 35e-6, (rows, columns)), rng.uniform(-0.2, 0.2, columns)


def currents(g: Any, volts: Any, row: float, column: float) -> Any:
    """Return the currents out of the rows as badcrossbar has them, A.

    Its word lines are driven and its bit lines leave behind the last word line: ours transposed, word lines reversed.
    Word lines are our columns.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # no pictures without cairo
        import badcrossbar

    solution = badcrossbar.compute(volts[::-1, None], 1 / g.T[::-1], r_i_word_line=column, r_i_bit_line=row)
    return np.asarray(solution.currents.output).ravel()


def main() -> None:
    """Write the fixture."""
    cases = []
    for name, rows, columns, row, column in CASES:
        g, volts = inputs(rows, columns)
        cases.append({"name": name, "row": row, "column": column, "conductance": g.tolist(), "volts": volts.tolist(),
                      "current": currents(g, volts, row, column).tolist()})
    made = {"made by": "badcrossbar 1.1.0, scripts/record_badcrossbar.py", "cases": cases}
    FIXTURE.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
