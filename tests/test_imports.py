"""The house: no circles of imports, no arrow upwards; imports in functions and for type checkers count."""

import ast
import graphlib
from pathlib import Path

import pytest

import pyrogen

ROOT = Path(pyrogen.__file__).parent
#: From the ground up; a room imports from those before it and from itself.
FLOORS = (
    (
        *("checks", "devices", "executors", "files", "hdf5", "labelled", "launch", "locks", "log", "memory"),
        *("printing", "progress", "schedules", "seeds", "signals", "threads", "warn"),
    ),
    ("flows", "targets", "events"),
    ("bayes",),
    ("classifier",),
    ("posterior",),
    ("coverage",),
    ("inference",),
    ("adversarial",),
    ("diagnostics",),
    ("search",),
    ("plotting",),
    ("plot",),
    ("recipes",),
    ("cli",),
    ("__main__",),
)
#: Rooms within inference; `backend` and the rest stand between `run` and the kinds of backends.
INFERENCE_FLOORS = (
    ("run", "problems", "documented"),
    ("backend",),
    ("calibrated", "streaming"),
    ("vi", "mcmc", "modes"),
    ("merging",),
    ("shards",),
)


def modules(root: Path) -> dict[str, Path]:
    """The files of the package by module name; a package stands for its face."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file names in its imports, wherever in the file these stand."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return {module for module in found if module in known and module != name}


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


@pytest.fixture(scope="module")
def house() -> dict[str, set[str]]:
    """The arrows of the package."""
    return graph(ROOT)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, if there is one."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def upwards(arrows: dict[str, set[str]], floors: tuple[tuple[str, ...], ...], depth: int) -> list[str]:
    """Arrows from a room to one above it, or to another on its floor that is a room of its own."""
    level = {room: i for i, rooms in enumerate(floors) for room in rooms}
    found = []
    for name, targets in arrows.items():
        for target in targets:
            rooms = [each.split(".")[depth] if each.count(".") >= depth else None for each in (name, target)]
            if None not in rooms and rooms[0] != rooms[1] and level[rooms[0]] < level[rooms[1]]:
                found.append(f"{name} -> {target}")
    return found


def test_no_circle_of_imports(house):
    assert len(house) > 100 and house["pyrogen.posterior.posterior"]  # it reads the package
    assert circle(house) == []


def test_no_arrow_upwards(house):
    assert {name.split(".")[1] for name in house if "." in name} == {room for rooms in FLOORS for room in rooms}
    assert upwards(house, FLOORS, 1) == []
    inside = {name: its for name, its in house.items() if name.startswith("pyrogen.inference.")}
    inside = {name: {t for t in its if t.startswith("pyrogen.inference.")} for name, its in inside.items()}
    assert upwards(inside, INFERENCE_FLOORS, 2) == []


def test_backends_of_one_kind_do_not_know_those_of_another(house):
    for room in ("vi", "mcmc", "modes"):
        own = {name: its for name, its in house.items() if name.startswith(f"pyrogen.inference.{room}")}
        others = tuple(f"pyrogen.inference.{other}" for other in ("vi", "mcmc", "modes") if other != room)
        assert not [f"{name} -> {target}" for name, its in own.items() for target in its if target.startswith(others)]


def test_diagnostics_know_posteriors_and_not_trainings(house):
    """What diagnostics need of a backend is its `fit_many`, and an error to catch."""
    allowed = {"pyrogen.inference.problems"}
    arrows = {name: its for name, its in house.items() if name.startswith(("pyrogen.diagnostics", "pyrogen.plotting"))}
    found = {target for its in arrows.values() for target in its if target.startswith("pyrogen.inference")}
    assert found <= allowed


@pytest.mark.parametrize(
    ("text", "arrow"),
    [
        ("import pack.b", "pack.b"),
        ("from pack import b", "pack.b"),
        ("from . import b", "pack.b"),
        ("from .b import thing", "pack.b"),
        ("from pack.b import thing", "pack.b"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.b import thing", "pack.b"),
        ("def late():\n    from pack.b import thing", "pack.b"),
    ],
)
def test_imports_are_found_wherever_they_stand(tmp_path, text, arrow):
    root = tmp_path / "pack"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text(text)
    (root / "b.py").write_text("")
    assert graph(root)["pack.a"] >= {arrow} and circle(graph(root)) == []
    (root / "b.py").write_text("from .a import other")
    assert set(circle(graph(root))) == {"pack.a", "pack.b"}


def unshielded(text: str) -> list[str]:
    """Packages of others that a function imports where Ctrl-C would leave them half imported."""
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    known = {node.args[0].value for node in calls if node.func.id == "require_extra"}
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "uninterrupted()" in head(node)]
    shielded = {id(inner) for block in blocks for inner in ast.walk(block)}
    found = []
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in shielded:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                found += [name for name in names if name.partition(".")[0] not in known]
    return found


def head(block: ast.With) -> str:
    return ", ".join(ast.unparse(item.context_expr) for item in block.items)


def test_signals_wait_for_late_imports():
    """A module that Ctrl-C leaves half imported cannot be imported any more, such as xarray in a notebook."""
    found = {name: unshielded(path.read_text()) for name, path in modules(ROOT).items()}
    assert {name: its for name, its in found.items() if its} == {}
    late = "def late():\n    {}import arviz"
    assert unshielded(late.format("")) == ["arviz"]
    assert unshielded(late.format("with quiet(), uninterrupted():\n        ")) == []
    assert unshielded("def door():\n    require_extra('arviz', 'x', 'y')\n" + late.format("")) == []
