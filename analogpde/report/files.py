"""Reading and writing reports."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from analogpde.errors import AnalogError, InvalidInput
from analogpde.report.model import Report
from analogpde.report.page import to_html
from analogpde.report.text import to_text

SUFFIXES = (".json", ".html", ".txt")


def targets(text: str) -> list[Path]:
    """Return the files that `-analog_report FILE,FILE` names, after a check that they can be written.

    To be called before the run: a report that cannot be written is best known before hours of solving.

    Args:
        text: file names separated by commas.

    Raises:
        InvalidInput: no file name, or a suffix of no known format.
        AnalogError: the folder cannot be written, or an .html report is asked for without jinja2.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidInput("-analog_report", text, "file names that end in " + " | ".join(SUFFIXES)
                           + ", separated by commas")
    paths = [Path(name) for name in names]
    for path in paths:
        if _suffix(path) == ".html" and importlib.util.find_spec("jinja2") is None:
            raise AnalogError(f"report {str(path)!r}: HTML reports need jinja2: pip install jinja2 (or write .json "
                              "now, and turn it into .html where jinja2 is installed)")
        if path.is_dir():
            raise AnalogError(f"report {str(path)!r} cannot be written: it is a folder; name a file in it")
        parent = path.absolute().parent
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        if not parent.is_dir():
            raise AnalogError(f"report {str(path)!r} cannot be written: {str(parent)!r} is not a folder")
        try:  # os.access is not enough: for root it says yes to every folder, also to those of /proc
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            raise AnalogError(f"report {str(path)!r} cannot be written: no file can be made in {str(parent)!r}: "
                              f"{error.strerror}") from None
    return paths


def write(report: Report, path: str | Path) -> Path:
    """Write a report in the format that the suffix of `path` names; missing folders are created.

    Not collective: call it on one rank.

    Args:
        report: the report.
        path: a file that ends in .json, .html or .txt.

    Returns:
        The path written.

    Raises:
        InvalidInput: another suffix.
        AnalogError: the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix == ".json":
        text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    elif suffix == ".html":
        text = to_html(report, folder=path.parent)
    else:
        text = to_text(report)
    # A reader never sees half a report: the text goes to a file beside the target, which then takes its name.
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(text, encoding="utf-8", newline="\n")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise AnalogError(f"report {str(path)!r} cannot be written: {error.strerror or error}; "
                          "name a file in a folder that you may write to") from None
    return path


def read(path: str | Path) -> Report:
    """Read a report that was written as .json.

    Raises:
        AnalogError: the file is missing or unreadable.
        InvalidInput: the file is not JSON, or not an analogpde-report/1.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise AnalogError(f"report {str(path)!r} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"report {str(path)!r}", "not UTF-8 text", "a .json convergence report") from None
    try:
        data: Any = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidInput(f"report {str(path)!r}", f"malformed JSON ({error})", "a .json convergence report",
                           "Only the .json form of a report can be read back.") from None
    try:
        return Report.from_dict(data)
    except InvalidInput as error:
        raise InvalidInput(f"{str(path)!r}: {error.what}", error.got, error.allowed, error.remedy) from None


def _suffix(path: Path) -> str:
    """Return the lower-case suffix of a report file.

    Raises:
        InvalidInput: it names no format.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"report file {str(path)!r}", path.suffix or "no suffix", " | ".join(SUFFIXES),
                           "The suffix chooses the format.")
    return suffix


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and infinity, which Python's parser would let through."""
    raise ValueError(f"{constant} is not JSON")
