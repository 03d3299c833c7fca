"""Every Python block of the documentation and the README runs."""

import re
from pathlib import Path

import pytest
from matplotlib import pyplot

from pyrogen.events import format as format_module
from pyrogen.flows import Transform
from pyrogen.posterior import weights as weights_module

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """The programs of a page: a block with ``import pyrogen as pg`` begins one, and a block without goes on with it."""
    found = []
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if found and not re.search(r"^import pyrogen as pg$", block, re.MULTILINE):
            found[-1] += block
        else:
            found.append(block)
    return found


BLOCKS = [pytest.param(block, id=f"{page.name}-{i}") for page in PAGES for i, block in enumerate(blocks(page))]


#: At most so many of what a block asks for.
MOST = {"epochs": 5, "steps": 40, "warmup": 10, "draws": 20, "ensemble": 1}


def shorter(block):
    """With short trainings: their lengths are for readers, and a block runs through all it has after one of any."""
    for name, most in MOST.items():
        block = re.sub(rf"\b{name}=(\d+)", lambda found: f"{name}={min(int(found[1]), most)}", block)  # noqa: B023
    return re.sub(r"pg\.HMC\((?![^)]*start_steps)", "pg.HMC(start_steps=20, ", block)


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch, sparse):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # as in the folder of the repository
    monkeypatch.setattr(Transform, "registry", dict(Transform.registry))  # what a block registers, it takes with it
    monkeypatch.setattr(weights_module, "FAMILIES", dict(weights_module.FAMILIES))
    monkeypatch.setattr(format_module, "_FORMATS", dict(format_module._FORMATS))
    exec(compile(shorter(block), "documentation", "exec"), {})
    pyplot.close("all")  # those of ArviZ


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_exist(page):
    text = page.read_text()
    assert not re.search(r"[A-Z]+_(TEXT|TABLE)|RUNTIME_", text), "a placeholder was left"
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_every_page_is_in_the_menu():
    """Files of a menu (toctree) are named without their suffix."""
    listed = {ROOT / "docs" / "index.md"}
    for page in PAGES[1:]:
        for menu in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            listed |= {(page.parent / f"{name.strip()}.md").resolve() for name in menu.splitlines() if name.strip()}
    assert {page.resolve() for page in PAGES[1:]} <= listed


def test_every_example_script_is_listed():
    text = (ROOT / "docs" / "scripts.md").read_text()
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"<../examples/{path.name}>" not in text] == []
