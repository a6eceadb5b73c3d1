"""One small self-contained page: no network, no script; light, dark, narrow and on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timezone
from pathlib import Path

from engine import __version__
from engine.analysis.explaining.words import esc, moment
from engine.errors import OutputError
from kernels.layout import LEVEL_NAMES

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#57606a;--line:#d8dee4;--page:#fff;--card:#f6f8fa;
--blue:#2f6fdd;--yellow:#c69026;--orange:#d9601a;--red:#c9252d;--good:#1a7f37;--bad:#c9252d;
--mark:#0969da22}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--line:#3d444d;--page:#0d1117;
--card:#151b23;--blue:#5a95f5;--yellow:#d4a72c;--orange:#f0883e;--red:#f85149;--good:#3fb950;
--bad:#f85149;--mark:#4493f833}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 20px 48px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:32px 0 8px}
p{margin:6px 0;max-width:80ch}
.dim{color:var(--dim)}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
tr:first-child>th{border-top:0}
th{font-weight:600;white-space:nowrap;background:var(--card)}
td.n,th.n{text-align:right;white-space:nowrap}
.k,td:first-child{white-space:nowrap}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.level{display:inline-block;white-space:nowrap}
.level::before{content:"";display:inline-block;width:.7em;height:.7em;margin-right:.4em;
border-radius:2px;background:var(--of)}
.blue{--of:var(--blue)}.yellow{--of:var(--yellow)}.orange{--of:var(--orange)}.red{--of:var(--red)}
.normal{--of:var(--line)}
.good{color:var(--good)}.bad{color:var(--bad)}
.note{border-left:3px solid var(--blue);background:var(--card);padding:8px 14px;
border-radius:0 6px 6px 0}
.note.bad{border-color:var(--bad);color:inherit}
svg{display:block;max-width:100%}
svg.curve{width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
ol,ul{padding-left:22px;margin:6px 0}
footer{margin-top:40px;color:var(--dim);font-size:.85rem}
@media (max-width:640px){body{padding:16px 12px 32px;font-size:14px}th,td{padding:5px 8px}
td:first-child{white-space:normal}td{min-width:5.5em}td.n{min-width:0}td>code{display:block;
min-width:11em;overflow-wrap:anywhere}}
@media print{:root{color-scheme:light;--ink:#000;--dim:#444;--line:#bbb;--page:#fff;--card:#fff;
--blue:#2f6fdd;--yellow:#c69026;--orange:#d9601a;--red:#c9252d;--good:#1a7f37;--bad:#c9252d}
body{max-width:none;padding:0;font-size:11px}.wide{overflow:visible;border:0}
tr,.tile,svg{break-inside:avoid}h2{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def page(title: str, body: str) -> str:
    """Return a whole page around a body; the title is text, the body is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(_POLICY)}">'
        f'<link rel="icon" href="data:,"><title>{esc(title)}</title><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main><footer>Made by Tocsin {esc(__version__)} with the engine that "
        "runs live.</footer></body></html>\n"
    )


def ready(path: Path) -> None:
    """Make sure that a page can be written, before anything takes time; raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def write_page(path: Path, text: str) -> None:
    """Write a page; raises OutputError."""
    ready(path)
    path.write_text(text, encoding="utf-8")


def when(event_ms: int, zone: timezone) -> str:
    """Return an event time that stays on one line."""
    return f'<span class="k">{esc(moment(event_ms, zone))}</span>'


def level_mark(level: int) -> str:
    """Return a level's name with its colour beside it."""
    name = LEVEL_NAMES[level]
    return f'<span class="level {name}">{name}</span>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: str = "") -> str:
    """Return a table of cells that are HTML; `numbers` has an `n` for each column of numbers."""
    kinds = [' class="n"' if kind == "n" else "" for kind in numbers.ljust(len(heads))]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a few figures in large print, each with what it is of."""
    each = "".join(f'<div class="tile"><b>{value}</b>{esc(name)}</div>' for name, value in pairs)
    return f'<div class="tiles">{each}</div>'
