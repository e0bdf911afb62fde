"""The problem scripts as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DIGITAL = ("-ksp_type", "cg", "-pc_type", "gamg")
ANALOG = ("-ksp_type", "analog")


def load(name: str) -> ModuleType:
    """Import problems/<name>.py once."""
    module = sys.modules.get(f"problem_{name}")
    if module is None:
        specification = importlib.util.spec_from_file_location(f"problem_{name}", ROOT / "problems" / f"{name}.py")
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module
        specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def problem():
    """Return a function that imports a problem script by name."""
    pytest.importorskip("analogpde.fem", exc_type=ImportError)
    return load


@pytest.fixture(params=[DIGITAL, ANALOG], ids=["digital", "analog"])
def solver(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options of a digital solver and of the analog one."""
    return request.param
