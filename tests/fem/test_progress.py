import io

import pytest

pytest.importorskip("analogpde.petsc.stack", exc_type=ImportError)

from analogpde.fem.progress import Progress


class Comm:
    def __init__(self, rank):
        self.rank = rank


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, rank=0, total=100):
    with Progress(Comm(rank), total, "heat", stream) as progress:
        for _ in range(total):
            progress.step("21 °C")
    return stream.getvalue()


def test_a_file_gets_a_few_lines():
    lines = run(io.StringIO()).splitlines()
    assert len(lines) == 4 and lines[-1].startswith("heat: 100 of 100") and "21 °C" in lines[-1]
    assert len(run(io.StringIO(), total=2).splitlines()) == 2


def test_a_terminal_gets_one_line_that_ends():
    text = run(Terminal())
    assert text.count("\n") == 1 and text.endswith("\n") and "100/100" in text


def test_other_ranks_are_quiet():
    assert run(io.StringIO(), rank=1) == ""
