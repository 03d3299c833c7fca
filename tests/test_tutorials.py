"""The examples that read as tutorials: they run as a user runs them, give a verdict, and draw their figures."""

import ast

import pytest
from test_examples import EXAMPLES, call, is_png

#: By script: arguments that make it short, its figures, and what it prints.
TUTORIALS = {
    "amplification": ((), ("calibration", "amplification"), ("within 1 sigma", "G = a bins^b", "was noise")),
    "ganplify": ((), ("quantile_error", "factor"), ("likelihood fit", "GAN", "Bootstrap", "50 quantiles")),
    "coverage_toys": (
        ("--sets", 2, "--events", 200),
        ("calibration",),
        ("SVI: 2 trainings", "without the truth: 2 trainings"),
    ),
    "coverage_drell_yan": ((), ("calibration",), ("whose own error", "M_pair", "\nall: ")),
    "worth": (
        ("--train", 500),
        ("worth", "map", "differential"),
        ("1,000,000 generated events count as", "all events: D = "),
    ),
    "classifier_control": (
        ("--fault", "hole"),
        ("weights", "failures"),
        ("wrong boundary in delta_r_ab", "after/floor"),
    ),
    "training_size": (
        ("--sizes", 400, 1200, "--steps", 60, "--members", 2),
        ("wedge/training_size",),
        ("sigma ~ N^(", "400 events"),
    ),
    "compare_backends": (  # one of each kind; all of them have the same settings in test_recipes.py
        ("--events", 100, "--backends", "svi", "laplace", "bootstrap", "sghmc", "hmc"),
        ("wedge/backends",),
        ("SVI", "Laplace", "Bootstrap", "SGHMC", "HMC"),
    ),
    "z_jets_systematics": (("--epochs", 1), ("pt_j1", "pt_pair", "pt_j2", "jets"), ("the events have 0.35",)),
    "cathode": (
        ("--flows", 1),
        ("template", "significance", "mass"),
        ("CATHODE, mjj from 3.4 to 3.6 TeV", "true background after each cut"),
    ),
    "bump_hunt": ((), ("spectrum", "scan"), ("events, B of generators", "global p-value")),
}
NEEDED = {
    "ganplify": "iminuit",
    "training_size": "iminuit",
    "bump_hunt": "iminuit",
    "classifier_control": "sklearn",
    "cathode": "sklearn",
    "z_jets_systematics": "pyhf",
}


@pytest.mark.parametrize("script", TUTORIALS)
def test_a_quick_run(script, tmp_path, short, sparse):
    if script in NEEDED:
        pytest.importorskip(NEEDED[script])
    arguments, figures, printed = TUTORIALS[script]
    told = call(script, "--quick", *arguments, "--out", tmp_path, layout=False)
    assert all(is_png(tmp_path / f"{figure}.png") for figure in figures)
    for words in printed:
        assert words in told


@pytest.mark.parametrize("script", [*TUTORIALS, "online", "showers"])
def test_it_is_short_and_hides_nothing(script):
    """At most 120 lines, which import no other script."""
    text = (EXAMPLES / f"{script}.py").read_text()
    assert text.count("\n") <= 120
    others = {path.stem for path in EXAMPLES.glob("*.py")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not others & set(names), names
    assert f"python examples/{script}.py --quick" in text.replace("  ", " ")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("coverage_drell_yan", ("--events", 2000), "4 samples of 2,000 events need 8,000"),
        ("classifier_control", ("--truth", "a.h5"), "give --truth and --generated together"),
        ("classifier_control", ("--fault", "bug"), "invalid choice"),
        ("training_size", ("--sizes", 20), "fewer than the 200 of one batch"),
        ("compare_backends", ("--backends", "svi", "gibbs"), "invalid choice: 'gibbs'"),
        ("showers", ("--particle", "muon"), "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused(script, arguments, message, tmp_path):
    assert message in call(script, "--quick", *arguments, "--out", tmp_path, code=2)
