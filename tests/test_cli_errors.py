"""Mistakes at the command line: one line that says what, where, and what would be right; no traceback."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_cli import CARD, command

import pyrogen as pg
from pyrogen.cli import commands, fitting
from pyrogen.cli.classes import BACKENDS, FLOWS, named, parameters
from pyrogen.cli.explaining import plain_text, words
from pyrogen.cli.parsing import parse_card
from pyrogen.cli.yaml_card import value_of
from pyrogen.inference import SVI


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    rng = np.random.default_rng(0)
    pg.EventSample(rng.normal(size=(60, 2)), ["pt", "eta"]).save(folder / "events.h5")
    with_nan = rng.normal(size=(60, 2))
    with_nan[7, 1] = np.nan
    np.save(folder / "nan.npy", with_nan)
    np.save(folder / "few.npy", with_nan[:5])
    (folder / "empty").mkdir()
    return folder


def card_with(folder, old="", new="", more=""):
    text = CARD.format(events=folder / "events.h5", run=folder / "run")
    assert old in text
    (folder / "card.yaml").write_text(text.replace(old, new, 1).lstrip("\n") + more)
    return folder / "card.yaml"


def message(capsys, *arguments, code=2):
    assert command(*arguments) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.rstrip("\n")


#: What is wrong, how the card is changed, the flags or the command, and the message.
MISTAKES = yaml.safe_load((Path(__file__).parent / "data" / "cli_mistakes.yaml").read_text())


@pytest.mark.parametrize("mistake", MISTAKES["cards"])
def test_a_mistake_in_a_card(folder, mistake, capsys):
    given = MISTAKES["cards"][mistake]
    card, expected = card_with(folder, **given.get("card", {})), given["message"]
    found = message(capsys, "fit", card, *given.get("flags", ()))
    if expected is None:
        assert found.startswith(f"pyrogen fit: error: {card}, line 3: backend.class is 'nowhere.Mine', which cannot be")
    else:
        assert found == f"pyrogen fit: error: {expected.format(c=card, f=folder)}"
    assert not (folder / "run").exists()  # before anything was done


@pytest.mark.parametrize("mistake", MISTAKES["commands"])
def test_a_mistake_in_a_command(folder, mistake, capsys):
    given = MISTAKES["commands"][mistake]
    found = message(capsys, *given["command"].format(f=folder).split())
    assert found == given["message"].format(f=folder)


def test_a_run_that_fails_is_code_1_and_debug_shows_where(folder, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise pg.TrainingDivergedError("the loss was NaN for 100 steps in a row")

    monkeypatch.setattr(SVI, "fit", fail)
    card = card_with(folder)
    flags = ["--run", tmp_path / "run"]
    assert message(capsys, "fit", card, *flags, code=1).splitlines()[-1] == (
        "pyrogen fit: error: the loss was NaN for 100 steps in a row"
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert "ERROR the loss was NaN" in (tmp_path / "run" / "run.log").read_text()
    assert command("fit", card, *flags, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_a_backend_refuses_before_training_leaves_no_card(folder, tmp_path, capsys):
    """The corrected card can take the same folder."""
    card = card_with(folder, "class: svi, epochs: 3", "class: bootstrap, steps: 5, replicas: 4, lr: 0.01")
    flags = ["--run", tmp_path / "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pg.Bootstrap, "_fit", lambda *_: (_ for _ in ()).throw(ValueError("replicas is 4; no")))
        assert "replicas is 4; no" in message(capsys, "fit", card, *flags)
    assert not (tmp_path / "run" / "card.yaml").exists()


def test_other_events_than_those_of_the_checkpoint_are_refused(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "look", lambda *_, **__: None)
    pg.events.read(folder / "events.h5").save(tmp_path / "mine.h5")
    card = card_with(folder, str(folder / "events.h5"), str(tmp_path / "mine.h5"))
    assert command("fit", card, "--run", tmp_path / "run") == 0
    pg.EventSample(np.random.default_rng(5).normal(size=(60, 2)), ["pt", "eta"]).save(tmp_path / "mine.h5")
    found = message(capsys, "resume", tmp_path / "run")
    assert "mine.h5, or pyrogen itself, changed since the run in" in found and "data.sha256" in found


@pytest.mark.parametrize("name", [*BACKENDS])
def test_every_backend_has_all_of_its_settings_in_the_card(name):
    card = parse_card("fit", ["--backend", name])
    own = {*parameters("backend", BACKENDS[name])}
    assert {*card.values["backend"]} == own | {"class"} and json.dumps(card.values)
    assert yaml.safe_load(card.text()) == card.values
    assert all(card.told[f"backend.{key}"] for key in own), name  # every one is explained


def test_classes_by_all_their_names():
    assert named("backend", "hmc") is named("backend", "HMC") is named("backend", "pyrogen.HMC") is pg.HMC
    assert named("flow", "CouplingFlow") is FLOWS["coupling"] is pg.CouplingFlow
    assert named("backend", "pyrogen.inference.vi.svi.SVI") is pg.SVI


def test_names_of_columns_in_all_forms(tmp_path):
    (tmp_path / "card.yaml").write_text("events: {file: e.h5, columns: 'pt, eta'}\n")
    for arguments in ([tmp_path / "card.yaml"], ["--events.columns", "pt,eta"], ["--events.columns=[pt, eta]"]):
        assert parse_card("fit", [str(each) for each in arguments]).settings["events"]["columns"] == ["pt", "eta"]
    assert parse_card("fit", ["--events.columns", "null"]).settings["events"]["columns"] is None


def test_numbers_and_words():
    assert value_of("1e-3") == 1e-3 and value_of("1E5") == 1e5 and value_of("[1, 2]") == [1, 2]
    assert value_of("h5") == "h5" and value_of("1.5") == 1.5 and value_of("12") == 12
    assert words(int | None) == "a whole number or null"
    assert words(tuple[float, float]) == "2 numbers in brackets, such as [0.9, 0.99]"
    assert plain_text("a :class:`~pyrogen.SVI` of ``x``") == "a SVI of x"


def test_a_recipe_that_is_not_there(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(name="pyrogen.recipes")

    monkeypatch.setattr(commands.importlib, "import_module", missing)
    assert message(capsys, "toy", "wedge") == "pyrogen toy: error: pyrogen toy is not in this version of pyrogen"


def test_warnings_are_lines_of_the_log(folder, tmp_path, monkeypatch, capsys):
    from pyrogen.warn import warn

    real = SVI.fit

    def warning(self, *arguments, **options):
        warn("something is odd")
        return real(self, *arguments, **options)

    monkeypatch.setattr(SVI, "fit", warning)
    monkeypatch.setattr(fitting, "look", lambda *_, **__: None)
    assert command("fit", card_with(folder), "--run", tmp_path / "run") == 0
    assert "WARNING warning: something is odd" in (tmp_path / "run" / "run.log").read_text()
    assert "\nwarning: something is odd\n" in capsys.readouterr().err
