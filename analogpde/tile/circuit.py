"""The reference: a tile as a netlist, solved node by node here or written as a deck for ngspice.

Nothing here knows the formulas of the emulator: resistors, amplifiers with one pole, sources, Kirchhoff's laws. One
description serves both solvers, so that a test compares solvers and not two descriptions. For tests and studies; slow.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from numpy.typing import NDArray

from analogpde.errors import AnalogError

GROUND = "0"
_TIGHT = "reltol=1e-10 abstol=1e-20 vntol=1e-14 gmin=1e-20"


@dataclass(frozen=True)
class OpAmp:
    """An operational amplifier: out = gain (plus + offset − minus), one or two poles, clipped at ±swing.

    Args:
        out, plus, minus: node names.
        gain: at zero frequency. offset, swing: V. gain_bandwidth: Hz; infinite for no pole.
        second_pole: Hz; infinite for none.
    """

    out: str
    plus: str
    minus: str
    gain: float
    offset: float = 0.0
    swing: float = np.inf
    gain_bandwidth: float = np.inf
    second_pole: float = np.inf


@dataclass
class Circuit:
    """A netlist.

    Args:
        conductances: (node, node, S). currents: (node, A) into the node. scalers: (out, in, factor, offset in V), ideal
            amplifiers out = factor · in + offset. amplifiers: see `OpAmp`.
    """

    conductances: list[tuple[str, str, float]] = field(default_factory=list)
    currents: list[tuple[str, float]] = field(default_factory=list)
    sources: list[tuple[str, float]] = field(default_factory=list)
    scalers: list[tuple[str, str, float, float]] = field(default_factory=list)
    amplifiers: list[OpAmp] = field(default_factory=list)

    def conductance(self, a: str, b: str, siemens: float) -> None:
        """Add a conductance; zero is none."""
        if siemens:
            self.conductances.append((a, b, float(siemens)))

    def nodes(self) -> dict[str, int]:
        """Return the number of each node; ground has none."""
        names = [name for a, b, _ in self.conductances for name in (a, b)] + [a for a, _ in self.currents]
        names += [a for a, _ in self.sources] + [name for out, into, _, _ in self.scalers for name in (out, into)]
        names += [name for amp in self.amplifiers for name in (amp.out, amp.plus, amp.minus)]
        return {name: k for k, name in enumerate(n for n in dict.fromkeys(names) if n != GROUND)}

    def _assemble(self, held: NDArray[np.float64]) -> tuple[sp.csc_matrix, NDArray[np.float64]]:
        """Return the modified nodal equations; outputs whose `held` is a number are voltage sources of that value."""
        index = self.nodes()
        size = len(index) + len(self.sources) + len(self.scalers) + len(self.amplifiers)
        row: list[int] = []
        col: list[int] = []
        value: list[float] = []
        right = np.zeros(size)

        def put(i: int, j: int, x: float) -> None:
            if i >= 0 and j >= 0:
                row.append(i)
                col.append(j)
                value.append(x)

        def at(name: str) -> int:
            return index.get(name, -1)

        for a, b, g in self.conductances:
            i, j = at(a), at(b)
            put(i, i, g)
            put(j, j, g)
            put(i, j, -g)
            put(j, i, -g)
        for a, current in self.currents:
            if at(a) >= 0:
                right[at(a)] += current
        k = len(index)
        for a, voltage in self.sources:
            put(at(a), k, 1.0)
            put(k, at(a), 1.0)
            right[k] = voltage
            k += 1
        for out, into, factor, offset in self.scalers:
            put(at(out), k, 1.0)
            put(k, at(out), 1.0)
            put(k, at(into), -factor)
            right[k] = offset
            k += 1
        for amp, fixed in zip(self.amplifiers, held, strict=True):
            put(at(amp.out), k, 1.0)
            if np.isnan(fixed):
                put(k, at(amp.out), 1.0 / amp.gain)
                put(k, at(amp.plus), -1.0)
                put(k, at(amp.minus), 1.0)
                right[k] = amp.offset
            else:
                put(k, at(amp.out), 1.0)
                right[k] = fixed
            k += 1
        return sp.csc_matrix((value, (row, col)), shape=(size, size)), right

    def solve(self, most: int = 200) -> dict[str, float]:
        """Return the operating point, voltages by node; outputs at the swing by an active set.

        Raises:
            AnalogError: no set of saturated outputs is consistent.
        """
        index = self.nodes()
        held = np.full(len(self.amplifiers), np.nan)
        for _ in range(most):
            matrix, right = self._assemble(held)
            x = spl.splu(matrix).solve(right)
            volts = {GROUND: 0.0, **{name: float(x[k]) for name, k in index.items()}}
            now = held.copy()
            for k, amp in enumerate(self.amplifiers):
                if np.isnan(held[k]):
                    now[k] = np.nan if abs(volts[amp.out]) <= amp.swing else np.copysign(amp.swing, volts[amp.out])
                else:
                    wanted = amp.gain * (volts[amp.plus] + amp.offset - volts[amp.minus])
                    now[k] = held[k] if wanted * np.sign(held[k]) >= amp.swing else np.nan
            if np.array_equal(now, held, equal_nan=True):
                return volts
            held = now
        raise AnalogError("no consistent set of saturated amplifiers: the circuit has no single steady state")

    def dynamics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return M and f of dv/dt = M v + f, v the outputs of the amplifiers, all of which must have a pole.

        Behind them come the outputs of the first stages of amplifiers with a second pole.
        """
        index = self.nodes()
        count = len(self.amplifiers)
        responses = []
        for k in range(count + 1):
            held = np.zeros(count)
            if k:
                held[k - 1] = 1.0
            matrix, right = self._assemble(held)
            x = spl.splu(matrix).solve(right)
            volts = {GROUND: 0.0, **{name: float(x[i]) for name, i in index.items()}}
            responses.append(np.array([volts[amp.plus] - volts[amp.minus] for amp in self.amplifiers]))
        rest = responses[0]
        pole = 2 * np.pi * np.array([amp.gain_bandwidth for amp in self.amplifiers])
        gain = np.array([amp.gain for amp in self.amplifiers])
        offset = np.array([amp.offset for amp in self.amplifiers])
        seen = np.array([r - rest for r in responses[1:]]).T
        motion, push = pole[:, None] * (seen - np.diag(1.0 / gain)), pole * (rest + offset)
        two = [k for k, amp in enumerate(self.amplifiers) if np.isfinite(amp.second_pole)]
        if not two:
            return motion, push
        whole = np.zeros((count + len(two), count + len(two)))
        whole[:count, :count], forced = motion, np.concatenate((push, np.zeros(len(two))))
        for first, k in enumerate(two, start=count):
            second = 2 * np.pi * self.amplifiers[k].second_pole
            whole[first, :count], forced[first] = motion[k], push[k]
            whole[first, k] += pole[k] / gain[k]
            whole[first, first] = -pole[k] / gain[k]
            whole[k], forced[k] = 0.0, 0.0
            whole[k, k], whole[k, first] = -second, second
        return whole, forced

    def deck(self) -> list[str]:
        """Return the lines of a SPICE deck."""
        lines = [f"R{k} {a} {b} {1 / g:.17g}" for k, (a, b, g) in enumerate(self.conductances)]
        lines += [f"I{k} 0 {a} {current:.17g}" for k, (a, current) in enumerate(self.currents)]
        lines += [f"V{k} {a} 0 {voltage:.17g}" for k, (a, voltage) in enumerate(self.sources)]
        for k, (out, into, factor, offset) in enumerate(self.scalers):
            lines += [f"Vs{k} {out} xs{k} {offset:.17g}", f"Es{k} xs{k} 0 {into} 0 {factor:.17g}"]
        for k, amp in enumerate(self.amplifiers):
            plus = f"xo{k}"
            lines.append(f"Vo{k} {plus} {amp.plus} {amp.offset:.17g}")
            clipped = np.isfinite(amp.swing)
            if np.isinf(amp.gain_bandwidth):
                if clipped:
                    wanted = f"{amp.gain:.17g}*(v({plus})-v({amp.minus}))"
                    lines.append(f"Ba{k} {amp.out} 0 V=max(min({wanted},{amp.swing:.17g}),{-amp.swing:.17g})")
                else:
                    lines.append(f"Ea{k} {amp.out} 0 {plus} {amp.minus} {amp.gain:.17g}")
                continue
            # one pole: a current of gain µA per volt into 1 MΩ and a capacitor
            lines += [f"Ga{k} 0 xp{k} {plus} {amp.minus} {amp.gain * 1e-6:.17g}", f"Rp{k} xp{k} 0 1e6",
                      f"Cp{k} xp{k} 0 {amp.gain / (2 * np.pi * amp.gain_bandwidth) * 1e-6:.17g}"]
            inside = f"xp{k}"
            if np.isfinite(amp.second_pole):
                inside = f"xq{k}"
                lines += [f"Eq{k} xb{k} 0 xp{k} 0 1", f"Rq{k} xb{k} xq{k} 1e3",
                          f"Cq{k} xq{k} 0 {1e-3 / (2 * np.pi * amp.second_pole):.17g}"]
            if clipped:
                lines.append(f"Ba{k} {amp.out} 0 V=max(min(v({inside}),{amp.swing:.17g}),{-amp.swing:.17g})")
            else:
                lines.append(f"Ea{k} {amp.out} 0 {inside} 0 1")
        return lines


def have_ngspice() -> bool:
    """Tell whether ngspice is installed."""
    return shutil.which("ngspice") is not None


def ngspice(
    circuit: Circuit, nodes: list[str], analysis: str = "op", *, seconds: float = 60.0, options: str = _TIGHT,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a circuit in ngspice.

    Args:
        circuit: what to run.
        nodes: whose voltages to return.
        analysis: 'op', or 'tran STEP STOP uic'.
        seconds: after which it is given up.
        options: tolerances, as SPICE writes them.

    Returns:
        Times (0 for 'op'), shape (points,), and voltages, shape (points, nodes).

    Raises:
        AnalogError: ngspice is not installed, or fails.
    """
    if not have_ngspice():
        raise AnalogError("ngspice is not installed: `apt install ngspice` on Debian and Ubuntu")
    text = ["* tile", f".options {options}", *circuit.deck(), ".save " + " ".join(f"v({name})" for name in nodes),
            ".control", "set filetype=ascii", "set numdgt=16", analysis, "write out.raw", ".endc", ".end", ""]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tile.cir").write_text("\n".join(text), encoding="ascii")
        try:
            run = subprocess.run(["ngspice", "-b", "tile.cir"], capture_output=True, text=True, timeout=seconds,
                                 cwd=folder, check=False)
        except subprocess.TimeoutExpired:
            raise AnalogError(f"ngspice did not end within {seconds:g} s") from None
        raw = Path(folder, "out.raw")
        if not raw.exists():
            raise AnalogError("ngspice failed: " + (run.stdout[-500:] + run.stderr[-500:]).strip())
        head, body = raw.read_text(encoding="ascii").split("Values:")
    found = re.search(r"No\. Variables:\s*(\d+)", head)
    assert found is not None
    names = [line.split()[1].lower() for line in head.split("Variables:")[-1].strip().splitlines()[: int(found[1])]]
    table = np.array(body.split()).reshape(-1, len(names) + 1)[:, 1:].astype(float)
    volts = table[:, [names.index(f"v({name.lower()})") for name in nodes]]
    return table[:, names.index("time")] if "time" in names else np.zeros(len(table)), volts


def _array(
    circuit: Circuit, conductance: NDArray[np.float64], columns: list[str], rows: list[str], name: str, row: float,
    column: float,
) -> None:
    """Add a crossbar between column and row nodes, with its wires."""
    m, n = conductance.shape
    for i in range(m):
        for j in range(n):
            upper = columns[j] if not column else f"{name}c{i}_{j}"
            lower = rows[i] if not row else f"{name}r{i}_{j}"
            circuit.conductance(upper, lower, conductance[i, j])
            if column:
                circuit.conductance(f"{name}c{i - 1}_{j}" if i else columns[j], upper, 1 / column)
            if row:
                circuit.conductance(f"{name}r{i}_{j - 1}" if j else rows[i], lower, 1 / row)


@dataclass(frozen=True)
class Parts:
    """The parts of a tile that are not cells; vectors have one entry a row (amplifiers) or a column (inverters).

    Args:
        gain, gain_bandwidth, second_pole, swing, offset: of the amplifiers. input_conductance: S.
        inverter_gain: None for ideal inverters. inverter_bandwidth, inverter_offset: of the inverters' amplifiers.
        ratio: resistor ratio of each inverter.
        row, column: Ω a segment.
    """

    gain: float = 1e9
    gain_bandwidth: float = np.inf
    second_pole: float = np.inf
    swing: float = np.inf
    offset: NDArray[np.float64] | None = None
    input_conductance: float = 0.0
    inverter_gain: float | None = None
    inverter_bandwidth: float = np.inf
    inverter_offset: NDArray[np.float64] | None = None
    ratio: NDArray[np.float64] | None = None
    row: float = 0.0
    column: float = 0.0


def inv_tile(
    positive: NDArray[np.float64], negative: NDArray[np.float64], current: NDArray[np.float64], parts: Parts,
) -> Circuit:
    """Return the closed loop of a tile; output j is node c<j>, the answer of an ideal one (G⁺ − G⁻)⁻¹ current.

    Args:
        positive, negative: conductances of the two arrays, S, shape (n, n).
        current: drawn out of each row node, A; with an input conductance g it comes from a source of −current/g.
        parts: the rest.
    """
    n = len(current)
    offset = np.zeros(n) if parts.offset is None else parts.offset
    ratio = np.ones(n) if parts.ratio is None else parts.ratio
    second = np.zeros(n) if parts.inverter_offset is None else parts.inverter_offset
    circuit = Circuit()
    rows, outs, inverted = ([f"{letter}{k}" for k in range(n)] for letter in "rcw")
    _array(circuit, positive, outs, rows, "p", parts.row, parts.column)
    _array(circuit, negative, inverted, rows, "m", parts.row, parts.column)
    unit = max(float(positive.max(initial=0.0)), float(negative.max(initial=0.0)))
    for k in range(n):
        if parts.input_conductance:
            circuit.sources.append((f"s{k}in", -current[k] / parts.input_conductance))
            circuit.conductance(f"s{k}in", rows[k], parts.input_conductance)
        else:
            circuit.currents.append((rows[k], -current[k]))
        circuit.amplifiers.append(OpAmp(outs[k], GROUND, rows[k], parts.gain, offset[k], parts.swing,
                                        parts.gain_bandwidth, parts.second_pole))
        if parts.inverter_gain is None:
            circuit.scalers.append((inverted[k], outs[k], -ratio[k], (1 + ratio[k]) * second[k]))
        else:
            circuit.conductance(outs[k], f"i{k}", ratio[k] * unit)
            circuit.conductance(f"i{k}", inverted[k], unit)
            circuit.amplifiers.append(OpAmp(inverted[k], GROUND, f"i{k}", parts.inverter_gain, second[k], np.inf,
                                            parts.inverter_bandwidth))
    return circuit


def mvm_tile(
    positive: NDArray[np.float64], negative: NDArray[np.float64], volts: NDArray[np.float64], feedback: float,
    parts: Parts,
) -> Circuit:
    """Return an open-loop array with transimpedance amplifiers; output i, node o<i>, is −(G⁺ − G⁻) volts / feedback.

    Args:
        positive, negative: conductances, S, shape (m, n). Columns of the second are driven by −volts.
        volts: of the column drivers, shape (n,).
        feedback: conductance between input and output of a row's amplifier, S.
        parts: of these the amplifiers and the wires.
    """
    m, n = positive.shape
    offset = np.zeros(m) if parts.offset is None else parts.offset
    circuit = Circuit()
    rows = [f"r{i}" for i in range(m)]
    for sign, name, array in ((1.0, "p", positive), (-1.0, "m", negative)):
        drivers = [f"{name}d{j}" for j in range(n)]
        circuit.sources += [(driver, sign * volts[j]) for j, driver in enumerate(drivers)]
        _array(circuit, array, drivers, rows, name, parts.row, parts.column)
    for i in range(m):
        circuit.conductance(rows[i], f"o{i}", feedback)
        circuit.amplifiers.append(OpAmp(f"o{i}", GROUND, rows[i], parts.gain, offset[i], parts.swing,
                                        parts.gain_bandwidth, parts.second_pole))
    return circuit
