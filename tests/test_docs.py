"""Every Python block of the documentation and the README runs."""

import re
from pathlib import Path

import pytest
from matplotlib import pyplot

from pyrogen.events import format as format_module
from pyrogen.flows import Transform
from pyrogen.posterior import weights as weights_module

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]


def shorter(block):
    """With short trainings: their lengths are for readers, and a block runs through all it has after one of any."""
    block = re.sub(r"\bepochs=(\d+)", lambda found: f"epochs={min(int(found[1]), 5)}", block)
    return re.sub(r"pg\.HMC\((?![^)]*start_steps)", "pg.HMC(start_steps=20, ", block)


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # as in the folder of the repository
    monkeypatch.setattr(Transform, "registry", dict(Transform.registry))  # what a block registers, it takes with it
    monkeypatch.setattr(weights_module, "FAMILIES", dict(weights_module.FAMILIES))
    monkeypatch.setattr(format_module, "_FORMATS", dict(format_module._FORMATS))
    exec(compile(shorter(block), "documentation", "exec"), {})
    pyplot.close("all")  # those of ArviZ


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_and_figures_exist(page):
    text = page.read_text()
    assert not re.search(r"[A-Z]+_(TEXT|TABLE)|RUNTIME_", text), "a placeholder was left"
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link
