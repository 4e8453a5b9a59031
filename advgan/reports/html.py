"""The parts that pages are made of: one file each, for screens wide and narrow, and for paper."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from advgan.metrics import Rate

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 62rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2rem;
  border-bottom: 1px solid #d0d7de; }
.summary { font-size: 1.1rem; background: #f6f8fa; border-left: 4px solid #0969da; padding: .8rem 1rem; }
.marked { background: #fff8c5; border-left: 4px solid #9a6700; padding: .5rem 1rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; width: 100%; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #d8dee4; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: pre; }
th.number { text-align: right; }
td.long { overflow-wrap: anywhere; }
td.status { white-space: nowrap; font-weight: 600; }
.pass { color: #1a7f37; } .warn { color: #9a6700; } .unchecked { color: #57606a; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #57606a; }
body.wide { max-width: 80rem; }
@media (max-width: 40rem) { table { font-size: .8rem; } th, td { padding: .25rem .35rem; } }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } .table { overflow: visible; }
  figure, tr { break-inside: avoid; } h2, h3, thead { break-after: avoid; }
  body.wide table { font-size: 7pt; } body.wide th, body.wide td { padding: .2rem; } }
"""
Cell = str | tuple[str, str]
"""Text, or text and the class of its cell."""


def document(title: str, parts: Iterable[str], wide: bool = False) -> str:
    """A whole page that needs nothing else.

    Args:
        title: as text.
        parts: of the body, as HTML.
        wide: whether its tables have many columns.
    """
    kind = ' class="wide"' if wide else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body{kind}>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def figure(title: str, caption: str, content: bytes) -> Iterable[str]:
    """A heading, a picture (the content of a PNG file) and what it shows."""
    encoded = base64.b64encode(content).decode()
    yield f"<h2>{escape(title)}</h2>"
    yield (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table that scrolls where it is too wide; a head of empty texts is left out."""
    rows = list(rows)
    kinds = [cell[1] if isinstance(cell, tuple) else "" for cell in (rows[0] if rows else ())]
    heads = "".join(
        f'<th class="number">{escape(name)}</th>' if kind == "number" else f"<th>{escape(name)}</th>"
        for name, kind in zip(head, kinds, strict=False)
    )
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    top = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f'<div class="table"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def rate_table(rows: Iterable[Sequence[Cell]], first: str = "", *last: str) -> str:
    """A table of rates; ``rate_row`` makes its rows.

    Args:
        rows: one for each rate.
        first, last: what stands above the names and above the last columns.
    """
    return table([first, "rate", "Wilson 95 %", "images", *last], rows)


def rate_row(name: str, rate: Rate | None, *last: str) -> Sequence[Cell]:
    """A row of a table of rates; ``last`` are more numbers."""
    if rate is None:
        return name, number("not measured"), "", "", *("" for _ in last)
    return name, number(f"{rate.rate:.2%}"), number(interval(rate)), number(f"{rate.n:,}"), *map(number, last)


def number(text: str) -> Cell:
    """A cell that is aligned to the right."""
    return text, "number"


def decimal(value: float | None, digits: int) -> Cell:
    """A cell with a number, or the words that there is none."""
    return number("not measured" if value is None else f"{value:.{digits}f}")


def interval(rate: Rate) -> str:
    """The Wilson 95 % interval in words."""
    return f"{rate.low:.2%} to {rate.high:.2%}"


def stacked(rate: Rate) -> str:
    """A rate above its interval, where there is no column for each."""
    return f"{rate.rate:.2%}\n{interval(rate)}"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    text, kind = cell
    return f'<td class="{kind}">{escape(text)}</td>'
