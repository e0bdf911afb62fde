"""Convergence reports: one data model, written as JSON, text or one self-contained HTML page."""

from analogpde.report.collect import build
from analogpde.report.files import read, targets, write
from analogpde.report.model import Report
from analogpde.report.page import to_html
from analogpde.report.schema import validate
from analogpde.report.text import to_text

__all__ = ["Report", "build", "read", "targets", "to_html", "to_text", "validate", "write"]
