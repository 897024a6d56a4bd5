"""A small, fixed part of scripts/check-statistics: intervals cover the truth, false alarms are rare."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check-statistics"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The script as a module."""
    loader = SourceFileLoader("check_statistics", str(SCRIPT))
    spec = importlib.util.spec_from_loader("check_statistics", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_statistics"] = module  # its dataclasses look their module up
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.mark.parametrize("weather", ["heavy tails", "drift", "autocorrelation"])
def test_coverage(check: ModuleType, weather: str) -> None:
    """The 95 % interval covers the true ratio in 88 to 100 of 100 runs of 40 rounds (5 standard errors around 95)."""
    found = [check.experiment(check.WEATHERS[weather], 1.05, 40, seed) for seed in range(100)]
    assert 0.88 <= check.coverage(found, check.truth(check.WEATHERS[weather], 1.05)) <= 1.0
    assert all(each.ci95[1] - each.ci95[0] < 0.5 for each in found)


def test_false_alarms(check: ModuleType) -> None:
    """Of 100 comparisons of a thing with itself, through drift and long tails, at most 8 are called different."""
    weather = check.Weather(tail=0.07, drift=0.25, autocorrelation=0.8)
    found = [check.experiment(weather, 1.0, 40, seed) for seed in range(100)]
    assert sum(each.verdict != "no-detectable-difference" for each in found) <= 8


def test_power(check: ModuleType) -> None:
    """10 % more are found in at least 19 of 20 runs of 200 rounds."""
    found = [check.experiment(check.WEATHERS["drift"], 1.1, 200, seed) for seed in range(20)]
    assert sum(each.verdict == "a-faster" for each in found) >= 19


def test_stopping_at_a_width_does_no_harm(check: ModuleType) -> None:
    """Runs that ended at an interval's width cover the truth as often as others."""
    weather = check.WEATHERS["heavy tails"]
    found = [check.stopped_experiment(weather, 1.05, 0.06, seed) for seed in range(60)]
    assert check.coverage(found, 1.05) >= 0.87
    assert all(each.n >= 40 for each in found)
