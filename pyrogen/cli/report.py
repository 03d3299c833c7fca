"""Reports: one HTML file with its figures inside, which opens anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrogen.files import write_bytes
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font-family: sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; line-height: 1.4; color: #222; }
h1 { border-bottom: 2px solid #0f5fa8; } h2 { margin-top: 1.6em; color: #0f5fa8; }
pre { background: #f4f6f8; padding: 0.8em; overflow-x: auto; white-space: pre-wrap; }
table { border-collapse: collapse; } td { padding: 0.15em 1em 0.15em 0; vertical-align: top; }
img { max-width: 100%; } figure { margin: 1em 0; } figcaption { color: #555; }
"""
CAPTIONS = {
    "training.png": "The course of the training.",
    "chains.png": "The course of the chains.",
    "histograms.png": "Generated events with the posterior's one and two sigma, over the held-out events.",
    "lines.png": "Density along lines with its uncertainty, over the known truth.",
    "densities.png": "Densities of both at the same events, and how far they differ in units of their uncertainty.",
    "bands.png": "Histograms of both, each with its one sigma.",
}


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures into a folder, which is made."""
    with uninterrupted():
        from pyrogen.plotting import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def write_report(
    path: Path,
    title: str,
    facts: Mapping[str, Any],
    text: Mapping[str, str],
    figures: Sequence[Path],
    card: str = "",
) -> None:
    """Write a report.

    Args:
        path: the HTML file.
        title: of the page.
        facts: a table at its top.
        text: paragraphs by heading.
        figures: PNG files, which become a part of the report.
        card: the run card.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", "<table>"]
    parts += [
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items()
    ]
    parts.append("</table>")
    for heading, paragraph in text.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", f"<pre>{html.escape(paragraph)}</pre>"]
    if figures:
        parts.append("<h2>Figures</h2>")
    for figure in figures:
        caption = html.escape(CAPTIONS.get(figure.name, figure.name))
        source = f"data:image/png;base64,{base64.b64encode(figure.read_bytes()).decode()}"
        parts.append(f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    if card:
        parts += ["<h2>Run card</h2>", f"<pre>{html.escape(card)}</pre>"]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
    write_bytes(path, page.encode())
