"""The command in this process: a run of every subcommand, on networks so small that they learn nothing."""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from killing import forked

import pyrogen as pg
from pyrogen import recipes
from pyrogen.cli import fitting, main, predicting
from pyrogen.cli.building import read_events
from pyrogen.cli.classes import BACKENDS, FLOWS
from pyrogen.cli.commands import COMMANDS, RECIPES
from pyrogen.cli.diagnosis import Diagnosis
from pyrogen.cli.parsing import parse_card
from pyrogen.locks import running
from pyrogen.signals import ENDING

#: A whole fit takes a second: three epochs, four weight draws, hardly any comparison.
CARD = """
events: {events}
flow: {{transform: rqs, blocks: 1, hidden: [4], bins: 3}}
backend: {{class: svi, epochs: 3, batch_size: 100}}
compared: 100
draws: 4
run: {run}
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with events.h5, and conditional.h5 with a condition and weights."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(1)
    x = pg.targets.Wedge().sample((400,)).double().numpy()
    pg.EventSample(x, ["pt", "eta"], ["GeV", ""]).save(folder / "events.h5")
    more = np.column_stack([x, x[:, :1] + 1, np.full((400, 1), 2.0)])
    pg.EventSample(more, ["pt", "eta", "energy", "w"], ["GeV", "", "TeV", ""]).save(folder / "conditional.h5")
    return folder


def write_card(folder, name="run", more="", **changes):
    """A card; returns its path and that of its run folder."""
    path = folder / f"{name}.yaml"
    path.write_text(CARD.format(events=folder / "events.h5", run=folder / name) + more)
    return path, folder / name


def command(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def brief(monkeypatch):
    """Runs without advice and figures, which take most of the time of such small ones."""
    found = Diagnosis({}, {"verdicts": {"serious findings": 0}}, {})
    monkeypatch.setattr(fitting, "diagnose", lambda *_, **__: found)


@pytest.fixture(scope="module")
def run(folder):
    """A finished run."""
    card, path = write_card(folder, "run", "generate: 30\n")
    assert command("fit", card) == 0
    return path


@pytest.fixture(scope="module")
def other(folder):
    """Another one, by another backend, that one flag chose."""
    flags = ["--run", folder / "other", "--backend", "ensemble", "--backend.members", 4, "--backend.steps=5"]
    assert command("fit", write_card(folder, "other")[0], *flags) == 0
    return folder / "other"


def test_a_run_folder_is_complete(run):
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("card.yaml", "run.log", "checkpoint.h5", "posterior.h5", "held_out.h5", "generated.h5"),
        *("figures", "report.html", "summary.json"),
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["events"]["training"] == 320
    assert summary["events"]["held out"] == 80 == len(pg.events.read(run / "held_out.h5"))
    assert summary["versions"]["torch"] == torch.__version__ and summary["seconds"]["training"] > 0
    assert any(finding["problem"] == "short training" and finding["serious"] for finding in summary["findings"])
    assert summary["verdicts"]["converged"] is False and summary["verdicts"]["serious findings"] > 0
    assert all((run / file).exists() for file in summary["files"])
    generated = pg.events.read(run / "generated.h5")
    assert len(generated) == 30 and generated.names == ("pt", "eta") and generated.units == ("GeV", "")


def test_the_card_in_the_folder_is_complete_and_means_the_same(run, folder):
    card = yaml.safe_load((run / "card.yaml").read_text())
    assert card["backend"]["epochs"] == 3 and card["backend"]["lr"] == 1e-3 and card["flow"]["hidden"] == [4]
    assert card["events"]["file"] == str(folder / "events.h5") and card["seed"] == 0
    assert "# passes over the training events." in (run / "card.yaml").read_text()
    assert command("fit", run / "card.yaml") == 0  # which is finished


def test_the_posterior_is_that_of_the_interface(run, folder):
    """Card and flags give the same bits as the calls that they stand for."""
    posterior = pg.load(run / "posterior.h5")
    held_out = pg.events.read(run / "held_out.h5")
    learned = pg.events.read(folder / "events.h5")
    rows = [not (row == held_out.values).all(1).any() for row in learned.values]
    flow = pg.CouplingFlow(2, transform="rqs", blocks=1, hidden=(4,), bins=3)
    again = pg.SVI(epochs=3, batch_size=100, progress=False).fit(pg.BayesianFlow(flow), learned[np.array(rows)])
    assert torch.equal(posterior.log_prob(held_out, 3), again.log_prob(held_out, 3))


def test_the_report_holds_its_figures(run):
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((run / "figures").glob("*.png"))) == 2
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside
    assert "short training" in page and "epochs: 3" in page


def test_the_log_has_what_the_terminal_had(run, capsys):
    text = (run / "run.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO 320 events to learn, 80 held out, from ", text)
    assert "finished:" in text and "Not converged" in text


def test_a_finished_run_says_so(run, folder, capsys):
    before = (run / "posterior.h5").read_bytes()
    assert command("fit", folder / "run.yaml") == 0
    assert f"the run in {run} is finished" in capsys.readouterr().err
    assert command("resume", run) == 0 and (run / "posterior.h5").read_bytes() == before


def test_a_finished_run_that_is_damaged_is_made_again_from_its_checkpoint(folder, tmp_path, brief, capsys):
    card, _ = write_card(folder, "damaged", "generate: 20\n")
    flags = ["--run", path := tmp_path / "run"]
    assert command("fit", card, *flags) == 0
    whole = {name: (path / name).read_bytes() for name in ("posterior.h5", "generated.h5")}
    capsys.readouterr()
    for name, what, how in (
        ("posterior.h5", "is not a whole HDF5 file", lambda path: path.write_bytes(whole["posterior.h5"][:500])),
        ("generated.h5", "is missing; it is made again", Path.unlink),
    ):
        how(path / name)
        assert command("resume", path) == 0
        told = capsys.readouterr().err
        assert f"{path / name} {what}" in told and f"going on from {path / 'checkpoint.h5'}" in told
        assert {name: (path / name).read_bytes() for name in whole} == whole
    for name in ("posterior.h5", "checkpoint.h5"):
        (path / name).write_bytes(whole["posterior.h5"][:500])
    assert command("resume", path) == 2
    assert "checkpoint.h5 is not a whole HDF5 file" in (told := capsys.readouterr().err)
    assert told.endswith("Delete this file, and the training begins anew\n")


def test_whole_numbers_may_have_an_exponent(folder, run, tmp_path, brief, capsys):
    card, path = write_card(folder, "exponent")
    card.write_text(card.read_text().replace("epochs: 3", "epochs: 2e0").replace("size: 100", "size: 1.0e+2"))
    assert command("fit", card, "--generate", "1e1", "--backend.epochs=1e0") == 0
    assert len(pg.events.read(path / "generated.h5")) == 10
    text = (path / "card.yaml").read_text()
    assert "epochs: 1\n" in text and "batch_size: 100\n" in text and "generate: 10\n" in text
    for given in (["-n=1.2e1"], ["-n", "1.2e1"]):
        assert command("generate", run, *given, "-o", tmp_path / "new.h5") == 0
        assert len(pg.events.read(tmp_path / "new.h5")) == 12
        (tmp_path / "new.h5").unlink()
    capsys.readouterr()
    for n in ("1.5e0", "1e99", "1e"):  # no whole number, or none that is exact
        assert command("generate", run, "-n", n, "-o", tmp_path / "new.h5") == 2
        assert f"-n is '{n}'; it must be a whole number" in capsys.readouterr().err


def test_another_card_in_the_same_folder_is_refused_with_the_differences(run, folder, capsys):
    assert command("fit", folder / "run.yaml", "--seed", 3, "--backend.epochs", 4) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"pyrogen fit: error: {run} holds a run of another card:",
        "  backend.epochs: 3 in the folder, 4 in this card",
        "  seed: 0 in the folder, 3 in this card",
        "Give another folder (--run), or delete this one",
    ]


def test_a_card_of_an_earlier_version_has_the_defaults_of_new_settings(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    text = (tmp_path / "run" / "card.yaml").read_text()
    (tmp_path / "run" / "card.yaml").write_text(text.replace("log_weights: false\n", ""))
    assert command("resume", tmp_path / "run") == 0 and "is finished" in capsys.readouterr().err


def test_two_processes_in_one_folder_are_refused(folder, capsys):
    card, path = write_card(folder, "busy")
    path.mkdir()
    inside, done = threading.Event(), threading.Event()

    def hold():
        with running(path / "card.yaml", "run the card"):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    try:
        assert command("fit", card) == 2
    finally:
        done.set()
        thread.join()
    assert f"cannot run the card {path / 'card.yaml'}: process " in capsys.readouterr().err
    assert not (path / "card.yaml").exists()


def test_generate(run, tmp_path):
    new = tmp_path / "new.h5"
    assert command("generate", run, "-n", 20, "-o", new, "--log-weights", "--draws", 4) == 0
    sample = pg.events.read(new)
    assert sample.log_weights.shape == (20, 4) and sample.uncertainties is not None
    assert command("generate", run / "posterior.h5", "-n", 20, "-o", tmp_path / "same.h5", "--draws=4") == 0
    assert np.array_equal(pg.events.read(tmp_path / "same.h5").values, sample.values)


def test_density(run, tmp_path):
    assert command("density", run, run / "held_out.h5", "-o", tmp_path / "p.h5", "--draws", 4) == 0
    sample, events = pg.events.read(tmp_path / "p.h5"), pg.events.read(run / "held_out.h5")
    found = pg.load(run / "posterior.h5").density(events, 4)
    assert np.array_equal(sample.column("density"), found.mean.double().numpy())
    assert np.array_equal(sample.column("density_sigma"), found.std.double().numpy())
    assert sample.names[:2] == ("pt", "eta") and sample.units[2:] == ("1/GeV", "1/GeV")
    assert sample.uncertainties == pytest.approx(found.relative.double().numpy(), rel=1e-6)


def test_density_keeps_what_the_file_has(run, tmp_path, capsys):
    """Other columns, weights and order are kept, units of the posterior are told, the file itself is not replaced."""
    x = pg.events.read(run / "held_out.h5").values
    values, weights = np.column_stack([x[:, 1], np.arange(80.0), x[:, 0]]), np.arange(1.0, 81.0)
    pg.EventSample(values, ["eta", "id", "pt"], weights=weights).save(tmp_path / "more.h5")
    assert command("density", run, tmp_path / "more.h5", "-o", tmp_path / "p.parquet", "--draws", 4) == 0
    assert "more.h5 has no unit of pt: it is taken to be in GeV" in capsys.readouterr().err
    found = pg.events.read(tmp_path / "p.parquet")
    assert found.names == ("eta", "id", "pt", "density", "density_sigma")
    assert found.units == ("", "", "GeV", "1/GeV", "1/GeV")
    assert np.array_equal(found.values[:, :3], values) and np.array_equal(found.weights, weights)
    expected = pg.load(run / "posterior.h5").density(x, 4).mean.double().numpy()
    assert found.column("density") == pytest.approx(expected, rel=1e-5)
    for output, told in (("more.h5", "the file of the events itself"), ("p.npy", "npy would lose the uncertainties")):
        before = (tmp_path / "more.h5").read_bytes()
        assert command("density", run, tmp_path / "more.h5", "-o", tmp_path / output) == 2
        assert told in capsys.readouterr().err and (tmp_path / "more.h5").read_bytes() == before


def test_density_of_events_with_a_varying_number_of_objects(tmp_path):
    layout = pg.events.Multiplicity(shared=1, each=1, most=2)
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    sample = pg.EventSample(values, ["a", "j1", "j2"], ["GeV", "", ""], multiplicity=layout)
    more = {"density": np.array([0.1, 0.2]), "density_sigma": np.array([0.01, 0.02])}
    found = predicting._with_columns(sample, more, "1/GeV", np.full(2, 0.1), {})
    assert found.names == ("a", "density", "density_sigma", "j1", "j2") and found.multiplicity.shared == 3
    assert found.units == ("GeV", "1/GeV", "1/GeV", "", "") and np.array_equal(found.column("density"), [0.1, 0.2])
    assert np.array_equal(found.select(["a", "j1", "j2"]).values, values, equal_nan=True)


def test_a_run_is_not_overwritten_by_its_predictions(run, tmp_path, capsys):
    before = (run / "posterior.h5").read_bytes()
    for source in (run, run / "posterior.h5"):
        assert command("generate", source, "-n", 20, "-o", run / "posterior.h5") == 2
        assert "a file of the run itself; give another name" in capsys.readouterr().err
    assert (run / "posterior.h5").read_bytes() == before
    assert command("generate", run, "-n", 20, "-o", tmp_path / "new.lhe") == 2  # before any event is made
    assert "LHE would lose the uncertainties" in capsys.readouterr().err and not os.listdir(tmp_path)


def test_columns_that_are_not_asked_for_may_hold_texts(folder, run, tmp_path, capsys):
    arrow = pytest.importorskip("pyarrow")
    table = pg.events.read(folder / "events.h5").to_arrow().replace_schema_metadata(None)
    table = table.append_column("sample", arrow.array(["ttbar"] * 400))
    arrow.parquet.write_table(table, tmp_path / "events.parquet")
    events, _ = read_events(tmp_path / "events.parquet", None, ["eta"], {"context": ["pt"]})
    assert events.names == ("eta",) and len(events) == 400
    assert command("density", run, tmp_path / "events.parquet", "-o", tmp_path / "p.h5", "--draws", 4) == 0
    assert "the other columns are left out: " in capsys.readouterr().err
    assert pg.events.read(tmp_path / "p.h5").names == ("pt", "eta", "density", "density_sigma")


def test_diagnose_again_with_the_truth(run):
    before = json.loads((run / "summary.json").read_text())
    assert command("diagnose", run, "--truth", "wedge") == 0
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["coverage of the truth"]["within_1_sigma"] <= 1
    assert summary["seconds"]["training"] == before["seconds"]["training"]
    assert (
        "figures/lines.png" in summary["files"] and "Coverage of the known truth" in (run / "report.html").read_text()
    )


def test_compare(run, other, tmp_path, capsys):
    assert command("compare", run, other, "-o", tmp_path / "c", "--generated", 100, "--draws", 4) == 0
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    events = pg.events.read(run / "held_out.h5")
    a, b = (pg.load(path / "posterior.h5").density(events, 4) for path in (run, other))
    rms = float((b.mean / a.mean).log().square().mean().sqrt())
    assert found["densities"]["rms_log_ratio"] == pytest.approx(rms, rel=1e-6) and found["probes"] == 80
    assert set(found["generated"]["wasserstein"]) == {"pt", "eta"}
    assert "less than 1 sigma of both" in capsys.readouterr().err
    assert (tmp_path / "c" / "report.html").read_text().count("data:image/png") == 2


def test_a_flag_replaces_the_backend_and_says_what_is_left_out(other):
    text = (other / "run.log").read_text()
    assert "backend ensemble takes the place of that of the card; its epochs, batch_size are left out" in text
    card = yaml.safe_load((other / "card.yaml").read_text())["backend"]
    assert card["class"] == "ensemble" and card["members"] == 4 and "epochs" not in card
    assert pg.load(other / "posterior.h5").info.backend == "Ensemble"


@pytest.mark.parametrize("what", ["posterior.h5", "checkpoint.h5", "held_out.h5", "summary.json", "card.yaml", ""])
def test_show(run, what, capsys):
    assert command("show", run / what if what else run) == 0
    out = capsys.readouterr().out
    expected = {
        "posterior.h5": ("posterior file, format version 3", "torch", "backend: SVI", "blocks 1", "columns: pt, eta"),
        "checkpoint.h5": ("checkpoint file", "settings: ", "epochs 3", "sha256"),
        "held_out.h5": ("events file", "80 events", "pt [GeV]"),
        "summary.json": ("status: finished",),
        "card.yaml": ("a run card",),
        "": ("run folder, finished", "finding: short training", "posterior.h5", "epochs: 3", "pyrogen 0.1"),
    }[what]
    assert all(each in out for each in expected), out


def test_calibrate(folder, capsys):
    more = "calibrate: {trainings: 3, probes: 5, draws: 10, rounds: 1, tolerance: 0.3}\nheld_out: 0\n"
    card, path = write_card(folder, "calibrated", more)
    assert command("calibrate", card) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert summary["command"] == "calibrate" and summary["events"]["held out"] == 0
    assert summary["calibration"]["one_sigma"] == list(pg.load(path / "posterior.h5").info.calibration.one_sigma)
    assert "No events were held out" in (path / "report.html").read_text()
    assert command("resume", path) == 0
    assert "is finished" in capsys.readouterr().err


def test_conditions_and_weights(folder, tmp_path, brief, capsys):
    card, path = write_card(folder, "conditional")
    events = f"events: {{file: {folder / 'conditional.h5'}, context: [energy], weights: w}}"
    card.write_text(card.read_text().replace(f"events: {folder / 'events.h5'}", events))
    assert command("fit", card) == 0
    posterior = pg.load(path / "posterior.h5")
    assert posterior.model.context == 1 and posterior.info.context_names == ("energy",)
    assert posterior.names == ("pt", "eta") and pg.events.read(path / "held_out.h5").weights is not None
    assert pg.events.read(path / "held_out_context.h5").names == ("energy",)
    new = tmp_path / "new.h5"
    assert command("generate", path, "-n", 80, "-o", new, "--draws", 4) == 2
    assert "is conditional; give its conditions: --context FILE with the columns energy" in capsys.readouterr().err
    given = ["--context", path / "held_out_context.h5"]
    assert command("generate", path, "-n", 80, "-o", new, "--draws", 4, *given) == 0 and len(pg.events.read(new)) == 80
    assert command("density", path, folder / "conditional.h5", "-o", tmp_path / "p.h5", "--draws", 4) == 0
    assert len(pg.events.read(tmp_path / "p.h5")) == 400
    assert command("compare", path, path, "-o", tmp_path / "c", "--draws", 4) == 0


OWN = """
import torch

class Gauss(torch.nn.Module):
    def __init__(self, features: int, width: float = 1.0):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.randn(features))
        self.width = width

    def log_prob(self, x):
        return torch.distributions.Normal(self.mean, self.width).log_prob(x).sum(-1)

    def sample(self, n):
        return self.mean + self.width * torch.randn(n, len(self.mean))
"""


def test_a_flow_of_the_users_own(folder, tmp_path, brief, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_flow_of_test.py").write_text(OWN)
    card, path = write_card(folder, "own")
    text = re.sub(r"flow: .*", "flow: {class: own_flow_of_test.Gauss, width: 0.5}", card.read_text())
    card.write_text(text + "model: {prior_scale: 2.0, preprocessing: [{UnitBox: {margin: 0.1}}]}\n")
    assert command("fit", card) == 0
    assert command("generate", path, "-n", 10, "-o", tmp_path / "new.h5", "--draws", 4) == 0
    card_there = yaml.safe_load((path / "card.yaml").read_text())
    assert card_there["flow"] == {"class": "own_flow_of_test.Gauss", "width": 0.5}
    assert card_there["model"]["preprocessing"] == [{"UnitBox": {"margin": 0.1}}]


def signalled(card, checkpoint, number):
    """The exit code of a run in a process of its own, which gets a signal when it has written its first checkpoint."""

    def work():
        replace = os.replace

        def and_signal(source, target):
            replace(source, target)
            if str(target) == str(checkpoint):
                os.kill(os.getpid(), number)

        os.replace = and_signal
        sys.exit(command("fit", card))

    return forked(work)


@pytest.fixture(scope="module")
def uninterrupted(folder):
    """The weights of a run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "look", lambda *_, **__: None)
        card, path = write_card(folder, "whole", "held_out: 0\n")
        assert command("fit", card) == 0
    return pg.load(path / "posterior.h5").weights.arrays


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda which: which.name)
def test_a_killed_run_is_resumed_to_the_same_bits(folder, brief, uninterrupted, number, capfd):
    card, path = write_card(folder, f"killed{number}", "held_out: 0\n")
    code = signalled(card, path / "checkpoint.h5", number)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert not (path / "posterior.h5").exists()
    status = json.loads((path / "summary.json").read_text())["status"] if number != signal.SIGKILL else "stopped"
    assert status == "stopped"
    if number != signal.SIGKILL:
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        line = f"stopped by {name}; the run is saved. Go on with: pyrogen resume {path}"
        assert f"pyrogen fit: {line}" in capfd.readouterr().err and line in (path / "run.log").read_text()
    assert command("resume", path) == 0
    assert "going on from" in (path / "run.log").read_text()
    found = pg.load(path / "posterior.h5").weights.arrays
    assert all(torch.equal(found[name], array) for name, array in uninterrupted.items())


def test_main_leaves_the_process_as_it_was(run):
    log, handlers = logging.getLogger("pyrogen"), {which: signal.getsignal(which) for which in ENDING}
    before = log.handlers[:], log.level, log.propagate
    command("show", run)
    assert (log.handlers[:], log.level, log.propagate) == before
    assert {which: signal.getsignal(which) for which in ENDING} == handlers


def test_help_names_every_command(capsys):
    assert command() == 2 and command("--help") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in (*COMMANDS, *RECIPES))
    for name in COMMANDS:
        assert command(name, "--help") == 0
        assert f"usage: pyrogen {name}" in capsys.readouterr().out
    assert command("--version") == 0 and capsys.readouterr().out == f"pyrogen {pg.__version__}\n"


def test_print_config_is_a_card(tmp_path, capsys):
    assert command("fit", "--print_config", "--backend", "hmc", "--backend.chains", "2") == 0
    out = capsys.readouterr().out
    card = yaml.safe_load(out)
    assert card["backend"]["class"] == "hmc" and card["backend"]["chains"] == 2 and card["events"]["file"] is None
    assert "# number of chains" in out or "# chains" in out
    (tmp_path / "card.yaml").write_text(out)
    assert command("fit", tmp_path / "card.yaml", "--print_config") == 0
    assert capsys.readouterr().out == out


PAGE = (Path(__file__).parent.parent / "docs" / "command.md").read_text()


def lines_of_the_page():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_the_lines_of_the_page_work(tmp_path, monkeypatch, brief, capsys):
    """All of them in their order, with shorter trainings: the lengths are for readers."""
    monkeypatch.chdir(tmp_path)
    pg.EventSample(torch.rand(120, 2), ["pt", "eta"]).save(tmp_path / "events.h5")
    (card,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "card.yaml").write_text(card + "draws: 4\n")
    short = {
        "svi": ["--backend.epochs=1"],
        "hmc": ["--backend.warmup=2", "--backend.draws=2", "--backend.start_steps=2"],
    }
    done = set()
    for line in lines_of_the_page():
        _, name, *arguments = shlex.split(line)
        done.add(name)
        if name in ("fit", "calibrate") and "--help" not in arguments and "--print_config" not in arguments:
            arguments += short["hmc" if "hmc" in arguments else "svi"] + ["--flow.blocks=1", "--flow.hidden=[4]"]
            arguments += ["--generate=20"]
        if name == "generate":
            arguments[arguments.index("100000")] = "20"
        if name == "compare":
            arguments += ["--generated=100", "--draws=4"]
        if name == "calibrate":  # which has a test of its own
            monkeypatch.setattr(fitting, "calibrate", lambda backend, *given, **_: backend.fit(*given))
        assert command(name, *arguments) == 0, (line, capsys.readouterr().err)
    assert done == set(COMMANDS)
    assert (tmp_path / "new.h5").exists() and (tmp_path / "run_2" / "summary.json").exists()


def test_the_page_names_every_command_and_key():
    card = parse_card("fit", [])
    assert all(f"`{name}`" in PAGE for name in (*COMMANDS, *RECIPES, *card.values, *BACKENDS, *FLOWS))


def test_recipes_are_commands(tmp_path, monkeypatch, capsys):
    """Their fields are flags, with types; they do their work elsewhere, see tests of the recipes."""
    ran = []
    monkeypatch.setattr(recipes.Toy, "run", lambda self, out: ran.append((self, out)) or {"bias": 0.0})
    assert command("toy", "kicker", "--quick", "--draws", 5, "-o", tmp_path / "k") == 0
    assert ran == [(recipes.Toy("kicker", quick=True, draws=5), tmp_path / "k")]
    assert command("toy", "kick") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "pyrogen toy: error: TARGET is 'kick'; it must be one of wedge, kicker, ring"
    )
    assert command("toy", "ring", "--quick", "--paper") == 2 and command("z-jets", "--train", "none") == 2
    assert capsys.readouterr().err.splitlines() == [
        "pyrogen toy: error: --paper is True; it must be left out where quick is given",
        "pyrogen z-jets: error: --train is 'none'; it must be a whole number",
    ]
    for name in RECIPES:
        assert command(name, "--help") == 0
        assert "--quick" in capsys.readouterr().out


def test_a_run_goes_on_from_any_folder(folder, tmp_path, brief, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    card, path = write_card(folder, "relative", "held_out: 0\n")
    card.write_text(card.read_text().replace(str(folder / "events.h5"), "events.h5"))
    assert command("fit", card) == 0
    (path / "summary.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert command("resume", path) == 0 and "going on from" in capsys.readouterr().err
    assert command("fit", card) == 2 and "no such file" in capsys.readouterr().err  # a card is read where it is used
