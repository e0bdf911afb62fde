"""Hand-made solves: what the PETSc layer would have handed over."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analogpde.chip.cell import Cell
from analogpde.chip.chip import Chip, Source
from analogpde.chip.converter import Converter
from analogpde.cost.ledger import Ledger
from analogpde.refine.record import SolveLog, SolveRecord, Step

ADVICE = "The true residual reached the FP32-equivalent target; nothing needs to be done."


def make_record(prefix: str = "heat_", iterations: int = 9, factor: float = 0.125, **changes: Any) -> SolveRecord:
    """Return a solve whose residual falls by `factor` in each iteration."""
    history = [
        Step(iteration=k, relative_residual=factor**k, correction=0.9 * factor ** (k - 1) if k else 0.0,
             bits_gained=3.0 if k else 0.0, inv_shots=120 * k)
        for k in range(iterations + 1)
    ]
    values: dict[str, Any] = {
        "prefix": prefix, "unknowns": 4913, "iterations": iterations, "converged_reason": "CONVERGED_RTOL",
        "advice": ADVICE, "relative_residual": history[-1].relative_residual,
        "backward_error": history[-1].relative_residual / 8, "preconditioner": "analog", "history": history,
        "operations": Ledger(inv_shots=120 * iterations, dac_conversions=15360 * iterations,
                             adc_conversions=15360 * iterations, cells_written=3_932_160, tiles_programmed=120,
                             tiles_reprogrammed=2, host_flops=11_000_000 * iterations,
                             host_bytes=74_000_000 * iterations),
        "seconds_setup": 0.25, "seconds_solve": 0.5,
        "description": "levels 2, tiles 120\n  level 0: 4913 unknowns, 112 tiles of 128",
    }
    return SolveRecord(**{**values, **changes})


def make_log(*records: SolveRecord) -> SolveLog:
    """Return the log of a run on two ranks of a plausible chip."""
    chip = Chip("rram128", "a plausible near-term foundry chip", dac=Converter(6), adc=Converter(8),
                cell=Cell(bits=4, programming_error=0.01, read_noise=0.005, conductance_max=35e-6),
                sources={"cell.bits": Source("a citation", "published")})
    log = SolveLog(chip=chip.as_dict(), options={"analog_chip": "rram128"}, ranks=2)
    for record in records:
        log.add(record)
    return log


@pytest.fixture(scope="session")
def record() -> Callable[..., SolveRecord]:
    """A maker of solves."""
    return make_record


@pytest.fixture(scope="session")
def log() -> Callable[..., SolveLog]:
    """A maker of logs."""
    return make_log


@pytest.fixture(scope="session")
def failed() -> SolveRecord:
    """A solve that stagnated above its target."""
    return make_record(prefix="flow_", iterations=12, factor=0.7, converged_reason="DIVERGED_BREAKDOWN",
                       advice="The residual has not fallen for 12 iterations: the tiles are too coarse.")


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red PNG of one pixel."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path_factory.mktemp("pictures") / "heat_sink.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b""))
    return path
