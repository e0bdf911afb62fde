"""Reading and writing."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest

from analogpde.errors import AnalogError, InvalidInput
from analogpde.report import build, read, targets, to_text, write


@pytest.fixture
def report(log, record):
    return build(log(record()), {"title": "Wärme – θ"})


def test_json_round_trip_is_strict(report, tmp_path):
    path = write(report, tmp_path / "new" / "folders" / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(word))
    assert data == report.as_dict()
    assert read(path) == report


def test_suffix_chooses_the_format(report, tmp_path):
    assert write(report, tmp_path / "r.TXT").read_text(encoding="utf-8") == to_text(report)
    assert write(report, str(tmp_path / "r.html")).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_writing_again_replaces_and_leaves_nothing_beside(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    write(report, path)
    assert read(path) == report
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_failed_write_keeps_the_old_report(report, tmp_path, monkeypatch):
    path = write(report, tmp_path / "report.txt")
    before = path.read_bytes()

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(AnalogError, match=r"report\.txt' cannot be written: No space left on device"):
        write(report, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.txt"]


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.json.gz"])
def test_another_suffix_is_refused_with_the_allowed_ones(report, tmp_path, name):
    with pytest.raises(InvalidInput, match=r"allowed: \.json \| \.html \| \.txt"):
        write(report, tmp_path / name)
    with pytest.raises(InvalidInput, match=r"allowed: \.json \| \.html \| \.txt"):
        targets(f"good.json,{name}")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made(report, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "deeper" / "report.json"
    with pytest.raises(AnalogError, match=r"report '.*report\.json' cannot be written: .*; name a file in a folder"):
        write(report, path)
    with pytest.raises(AnalogError, match=r"cannot be written: '.*file' is not a folder"):
        targets(str(path))


def test_a_target_that_is_a_folder(report, tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(AnalogError, match="cannot be written"):
        write(report, tmp_path / "report.json")
    with pytest.raises(AnalogError, match="it is a folder; name a file in it"):
        targets(str(tmp_path / "report.json"))
    assert os.listdir(tmp_path) == ["report.json"]


def test_targets_are_read_from_the_option_and_nothing_is_made(tmp_path):
    paths = [tmp_path / "a" / "b" / "r.json", tmp_path / "r.html"]
    assert targets(f"{paths[0]}, {paths[1]}") == paths
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "a.json,", ",a.json", " "])
def test_targets_without_a_name(text):
    with pytest.raises(InvalidInput, match="-analog_report"):
        targets(text)


def test_targets_know_that_html_needs_jinja2(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AnalogError, match="pip install jinja2"):
        targets("report.html")
    assert [str(path) for path in targets("report.json")] == ["report.json"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(report, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(AnalogError, match="no permission"):
            targets(str(tmp_path / "report.json"))
        with pytest.raises(AnalogError, match="Permission denied"):
            write(report, tmp_path / "report.json")
    finally:
        tmp_path.chmod(0o700)


def test_read_a_missing_file(tmp_path):
    with pytest.raises(AnalogError, match=r"none\.json' cannot be read: No such file"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize(("content", "message"), [
    (b"{", "malformed JSON"),
    (b'{"schema": NaN}', "NaN is not JSON"),
    (b"<!DOCTYPE html>", "malformed JSON"),
    (b"\xff\xfe", "not UTF-8 text"),
    (b"[]", r"report: got \[\]; allowed: object"),
    (b'{"schema": "analogpde-report/2"}', r"report\.schema: got 'analogpde-report/2'; allowed: .*another version"),
    (b"{}", r"report\.schema: got None"),
    (b'{"schema": "analogpde-report/1"}', r"report\.problem: got 'nothing'"),
])
def test_read_names_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"bad\.json'.*{message}"):
        read(path)
