"""The HTML page: whole, self-contained, safe and accessible."""

from __future__ import annotations

import math
import sys
from html.parser import HTMLParser

import pytest

from analogpde.cost.ledger import Ledger
from analogpde.errors import AnalogError
from analogpde.refine.record import Step
from analogpde.report import build, to_html

VOID = {"meta", "br", "img", "link", "hr", "input"}
EVIL = "<script>alert('x')</script> & \"quoted\""


class Page(HTMLParser):
    """A strict reader of the page: every element closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element `tag`."""
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        """Return the text of the page with single spaces."""
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def full(log, record, failed, picture):
    """A page with everything on it."""
    pytest.importorskip("matplotlib")
    made = log(record(), record(iterations=7), failed,
               record(prefix="lu_", preconditioner="lu", operations=Ledger(host_flops=5)))
    made.solves["heat_"].verified(3.2e-9, 4.1e-6)
    return Page(to_html(build(made, {
        "title": "Heat sink", "parameters": {"n": 16}, "pictures": [{"path": picture, "caption": "Temperature, °C"}],
        "files": ["results/T.xdmf"],
        "results": [{"name": "T at x", "value": 36.58, "unit": "°C", "expected": 36.6, "tolerance": 0.05}]})))


def test_everything_is_on_the_page(full):
    words = full.words()
    for part in ("Heat sink", "FAILED: 1 of 4 solves did not converge", "rram128: tile 128",
                 "NOT CONVERGED: DIVERGED_BREAKDOWN after 12 iterations", "the tiles are too coarse",
                 "2 solves, all converged; iterations: min 7, mean 8.0, max 9",
                 "digital preconditioner 'lu': no tiles took part in these corrections",
                 "36.58 °C", "within tolerance", "3.20e-09", "4.10e-06", "not above native FP32", "DAC conversions",
                 "a citation", "published", "35 µS", "results/T.xdmf", "4,913 unknowns"):
        assert part in words
    assert len(full.all("svg")) == 1 + 3 * 2 + 1, "iterations over solves; residual and bits of each prefix; cost"


def test_nothing_is_loaded_from_elsewhere(full):
    assert not full.all("script") and not full.all("link") and not full.all("iframe")
    for _, attributes in full.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value is not None and value.startswith(("data:image/png;base64,", "#"))
            assert "http" not in (value or "") or name.startswith("xmlns")


def test_style_sheet_loads_nothing(log, record):
    text = to_html(build(log(record())))
    style = text[text.index("<style>"):text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert text.count("<style") == 1, "a figure's own style sheet would reach the whole page"


def test_identifiers_are_unique_and_every_reference_has_its_target(full):
    names = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(names) == len(set(names))
    references = [attributes["href"] for tag, attributes in full.elements if tag == "use"]
    assert references and {str(reference)[1:] for reference in references} <= set(names)
    clips = {attributes["clip-path"] for _, attributes in full.elements if "clip-path" in attributes}
    assert clips and {str(clip)[5:-1] for clip in clips} <= set(names)


def test_accessible(full):
    assert full.all("html")[0]["lang"] == "en" and len(full.all("h1")) == 1
    assert all(attributes.get("scope") in ("col", "row") for attributes in full.all("th"))
    assert len(full.all("caption")) == len(full.all("table")) > 3
    assert [attributes["alt"] for attributes in full.all("img")] == ["Temperature, °C"]
    for attributes in full.all("svg"):
        assert attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20
    labelled = {attributes["aria-labelledby"] for attributes in full.all("section")}
    assert labelled <= {attributes.get("id") for attributes in full.all("h2")}


def test_figures_take_the_colours_of_the_page(log, record):
    pytest.importorskip("matplotlib")
    text = to_html(build(log(record())))
    assert "var(--first)" in text[text.index("<svg"):]
    assert "#010203" not in text and "#070809" not in text


def test_text_from_outside_is_escaped(log, record):
    evil = record(prefix=EVIL, advice=EVIL, description=EVIL, preconditioner=EVIL, operations=Ledger())
    made = log(evil, evil)
    made.options[EVIL] = EVIL
    made.chip["title"] = EVIL
    page = Page(to_html(build(made, {
        "title": EVIL, "parameters": {EVIL: EVIL}, "files": [EVIL], "pictures": [EVIL],
        "results": [{"name": EVIL, "value": EVIL, "unit": EVIL, "source": EVIL}]})))
    assert not page.all("script")
    assert page.text.count("alert('x')") >= 14
    assert "&lt;" not in page.text, "nothing is escaped twice"


def test_values_that_are_not_finite(log, record):
    broken = record(relative_residual=math.nan, backward_error=math.nan, converged_reason="DIVERGED_NANORINF",
                    history=[Step(0, 1.0, 0.0, 0.0, 0), Step(1, math.nan, math.nan, math.nan, 9)])
    page = Page(to_html(build(log(broken), {"results": [{"name": "T", "value": math.nan}]})))
    assert "not finite" in page.words() and not page.all("svg")
    assert "nan" not in page.words().lower().replace("diverged_nanorinf", "")


def test_without_matplotlib_the_page_says_how_to_get_figures(log, record, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(to_html(build(log(record(), record()))))
    assert not page.all("svg")
    assert "This page has no figures" in page.words() and "pip install matplotlib" in page.words()


def test_the_users_matplotlib_is_left_alone(log, record):
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "yellow"}):
        before = dict(matplotlib.rcParams)
        page = Page(to_html(build(log(record()))))
        assert dict(matplotlib.rcParams) == before
    assert len(page.all("svg")) == 3


def test_a_prefix_is_never_read_as_a_formula(log, record):
    pytest.importorskip("matplotlib")
    strange = record(prefix="$\\frac{_中")
    page = Page(to_html(build(log(strange, strange))))
    assert len(page.all("svg")) == 4


def test_figures_are_left_out_where_there_is_nothing_to_draw(log, record):
    empty = record(iterations=0, history=[Step(0, 0.0, 0.0, 0.0, 0)], relative_residual=0.0, backward_error=0.0)
    page = Page(to_html(build(log(empty))))
    assert not page.all("svg") and "no figures" not in page.words()


def test_pictures_that_cannot_be_shown_become_sentences(log, record, tmp_path, picture):
    text = tmp_path / "picture.png"
    text.write_text("not a picture")
    page = Page(to_html(build(log(record()), {"pictures": [tmp_path / "none.png", text, picture]})))
    assert "none.png could not be read: No such file" in page.words()
    assert "picture.png is neither PNG nor JPEG" in page.words()
    assert [attributes["alt"] for attributes in page.all("img")] == ["heat sink"]


def test_a_relative_picture_is_found_beside_the_report(log, record, picture):
    report = build(log(record()), {"pictures": [picture.name]})
    assert not Page(to_html(report)).all("img")
    assert len(Page(to_html(report, folder=picture.parent)).all("img")) == 1


def test_an_empty_log_makes_a_page(log):
    page = Page(to_html(build(log())))
    assert "no solve was recorded" in page.words()


def test_a_missing_jinja2_is_named(log, record, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(AnalogError, match="pip install jinja2"):
        to_html(build(log(record())))
