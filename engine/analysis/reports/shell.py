"""What a page of a report has around its sections: head, style, values, scripts, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import orjson

from engine import __version__
from engine.analysis.reports.html import esc

_ASSETS = files("engine.analysis") / "assets"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
)
"""Even if something got through, the page could not tell anyone."""


def document(
    *,
    title: str,
    brand: str,
    sections: Sequence[tuple[str, str, str]],
    values: Any,
    scripts: Sequence[str],
    end: str,
    styles: Sequence[str] = ("report.css",),
) -> bytes:
    """Return a whole page; a section is (id, words, HTML), `end` is what its foot says, as HTML.

    `scripts` and `styles` are names of assets; scripts find `values` in the element of that id.
    """
    links = "".join(f'<a href="#{name}">{words}</a>' for name, words, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{words}</h2>'
        f"{content}</section>"
        for name, words, content in sections
    )
    top = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(_POLICY)}">'
        '<link rel="icon" href="data:,">'
        f'<meta name="generator" content="Tocsin {esc(__version__)}">'
        f"<title>{esc(title)} – {esc(brand)}</title><style>"
    )
    head = (
        '<a class="skip" href="#main">To the content</a><header class="top"><div>'
        f'<p class="brand">{esc(brand)}</p><h1>{esc(title)}</h1></div>'
        '<p class="tools"><button type="button" id="theme">Dark</button>'
        '<button type="button" id="print">Print</button></p></header>'
        f'<nav aria-label="Sections">{links}</nav>'
    )
    foot = (
        f"<footer>Made by Tocsin {esc(__version__)} from the engine’s own judgement; {end} "
        "Charts: Apache ECharts, Apache-2.0.</footer>"
    )
    return b"".join(
        [
            top.encode(),
            *(asset(name) for name in styles),
            b"</style><script>",
            asset("theme.js"),
            b"</script></head><body>",
            head.encode(),
            f'<main id="main">{body}</main>{foot}'.encode(),
            b'<script type="application/json" id="values">',
            inert(values),
            b"</script>",
            *(b"<script>" + asset(name) + b"</script>" for name in scripts),
            b"</body></html>\n",
        ]
    )


def inert(objects: Any) -> bytes:
    """Return JSON in which nothing can end or begin an element."""
    text = orjson.dumps(objects, option=orjson.OPT_SERIALIZE_NUMPY)
    for byte, escape in ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026")):
        text = text.replace(byte, escape)
    return text


def asset(name: str) -> bytes:
    """Return a file of the assets."""
    found = _ASSETS
    for part in name.split("/"):
        found = found / part
    return found.read_bytes()
