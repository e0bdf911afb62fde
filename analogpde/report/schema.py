"""The JSON Schema of a report: shipped as `schema.json`, the one description of the file format."""

from __future__ import annotations

import importlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from analogpde.errors import AnalogError, InvalidInput

SCHEMA = "analogpde-report/1"

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of analogpde-report/1; do not change the returned value."""
    text = files("analogpde.report").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(data: Any) -> None:
    """Check a report against the JSON Schema with the jsonschema package.

    Args:
        data: a report as plain data, e.g. `Report.as_dict()` or the content of a .json report.

    Raises:
        InvalidInput: the data does not fit; the message names the place.
        AnalogError: the jsonschema package is not installed.
    """
    try:
        # Through importlib: jsonschema ships no type information.
        jsonschema = importlib.import_module("jsonschema")
    except ImportError:
        raise AnalogError("validating a report needs the jsonschema package: pip install jsonschema") from None
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(data))
    if error is not None:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        raise InvalidInput(f"report{place}", _short(error.instance), error.message)


def check(data: Any) -> None:
    """Check a report against the schema's structure without any package beyond the standard library.

    Reading a report must not need jsonschema, and must not end in a traceback on a file somebody edited.

    Raises:
        InvalidInput: the data does not fit; the message names the place and what is allowed there.
    """
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        raise InvalidInput("report.schema", data.get("schema"), repr(SCHEMA),
                           "This is not a convergence report, or one of another version of analogpde.")
    _check(data, schema(), "report")


def _check(value: Any, rule: dict[str, Any], place: str) -> None:
    """Check the keywords that schema.json uses: $ref, type, const, minimum, required, properties, items."""
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        raise InvalidInput(place, _short(value), " or ".join(kinds))
    if "const" in rule and value != rule["const"]:
        raise InvalidInput(place, _short(value), repr(rule["const"]))
    if "minimum" in rule and _is_a(value, "number") and value < rule["minimum"]:
        raise InvalidInput(place, value, f"at least {rule['minimum']}")
    if isinstance(value, dict):
        properties = rule.get("properties", {})
        for name in rule.get("required", []):
            if name not in value:
                raise InvalidInput(f"{place}.{name}", "nothing", "a value: this field is required")
        for name, entry in value.items():
            if name in properties:
                _check(entry, properties[name], f"{place}.{name}")
            elif rule.get("additionalProperties") is False:
                raise InvalidInput(f"{place}.{name}", _short(entry), "the fields " + ", ".join(properties))
            elif isinstance(rule.get("additionalProperties"), dict):
                _check(entry, rule["additionalProperties"], f"{place}.{name}")
    if isinstance(value, list) and "items" in rule:
        for index, entry in enumerate(value):
            _check(entry, rule["items"], f"{place}[{index}]")


def _is_a(value: Any, kind: str) -> bool:
    """Return whether `value` is of the JSON type `kind`; Python's bool is an int, JSON's is not."""
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _short(value: Any) -> Any:
    """Return `value`, or a text that stands for one too long to print."""
    text = repr(value)
    return value if len(text) <= 80 else f"{text[:77]}..."
