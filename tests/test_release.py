"""One version, one licence, and a citation that says the same."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

import pyrogen

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]


def setup():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_version_is_that_of_citation_and_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == pyrogen.__version__ == newest[1]
    assert str(citation["date-released"]) == newest[2]
    assert citation["license"] == setup()["metadata"]["license"]


def test_citation_has_what_its_schema_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert all({"title", "type", "authors"} <= set(reference) for reference in citation["references"])


def test_constraints_satisfy_the_lower_bounds():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    options = setup()
    lines = options["options"]["install_requires"].split("\n")
    for extra in options["options.extras_require"].values():
        lines += extra.split("\n")
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "%"))]
    assert len(wanted) > 20
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt has no version of {requirement.name}"
        assert requirement.specifier.contains(pins[name]), f"{requirement}, but constraints.txt has {pins[name]}"
