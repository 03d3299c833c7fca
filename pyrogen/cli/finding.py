"""What a run folder holds: its card and its posterior."""

from __future__ import annotations

from pathlib import Path

from pyrogen.cli.building import make_model, read_data, run_settings
from pyrogen.cli.parsing import Card, parse_values
from pyrogen.cli.problems import CommandError
from pyrogen.cli.run_folder import RunFolder
from pyrogen.cli.yaml_card import read_card
from pyrogen.events import read
from pyrogen.posterior import Posterior, load


def card_of(folder: RunFolder) -> Card:
    """The card of a run folder, as it was run.

    Raises:
        CommandError: no run folder, or a card that cannot be read.
    """
    folder.check_is_run()
    values, places = read_card(folder.card)
    command = "calibrate" if "calibrate" in values else "fit"
    card = parse_values(command, values | {"run": str(folder.path)}, places)
    assert isinstance(card, Card)
    return card


def command_of(card: Card) -> str:
    """The command that a card is for."""
    return "calibrate" if "calibrate" in card.settings else "fit"


def posterior_of(path: str | Path) -> Posterior:
    """The posterior of a run folder, or in a file.

    Raises:
        CommandError: there is none, or the run has not come that far.
        FileFormatError: a damaged file, or one of another kind.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise CommandError(f"no such run folder or posterior: {path}")
        return load(path)
    folder = RunFolder(path)
    folder.check_is_run()
    if not folder.posterior.exists():
        raise CommandError(f"the run in {path} has no posterior yet; go on with it: pyrogen resume {path}")
    try:
        return load(folder.posterior)
    except ValueError as error:
        if "flow=" not in str(error):
            raise
    card = card_of(folder)  # a flow of the user's own: files hold no code
    run = run_settings(card)
    conditions = len(card.settings["events"]["context"] or ())
    data = read(folder.held_out) if folder.held_out.exists() else read_data(card, run).learned
    return load(folder.posterior, make_model(card, run, data.features, conditions).flow)
