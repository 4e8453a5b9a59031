"""``report.html``: an evaluation as one page that needs nothing else, for screens wide and narrow, and for paper."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

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
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { text-align: right; }
td.status { white-space: nowrap; font-weight: 600; }
.pass { color: #1a7f37; } .warn { color: #9a6700; } .unchecked { color: #57606a; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #57606a; }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } .table { overflow: visible; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""
CLASSES = {"pass": "pass", "warn": "warn", "not checked": "unchecked"}
SIGNS = {"pass": "✓ pass", "warn": "! warn", "not checked": "– not checked"}
Cell = str | tuple[str, str]
"""Text, or text and the class of its cell."""


def page(record: Mapping[str, Any], figures: Sequence[tuple[str, str, bytes]]) -> str:
    """The page as HTML.

    Args:
        record: the content of ``evaluation.json``.
        figures: for each its title, what it shows, and its PNG.
    """
    title = f"AdvGAN evaluation: {record['run']}"
    marked = [found for found in record["guards"] if found["status"] == "warn"]
    counts = [sum(line["status"] == status for line in record["card"]) for status in ("pass", "warn", "not checked")]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="summary">{escape(in_words(record))}</p>',
        *(f'<p class="marked"><b>Marked: {escape(f["guard"])}.</b> {escape(f["reason"])}</p>' for f in marked),
        "<h2>Threat model</h2>",
        f"<p>{escape(record['threat_model'])}.</p>",
        _table(["", ""], [("target", record["target"]["name"]), ("data", _data(record))]),
        "<h2>Success</h2>",
        _table(["", "rate", "Wilson 95 %", "images", ""], [*_success_rows(record)]),
        "<h2>Beside other attacks</h2>",
        "<p>Same images, same epsilon. Seconds are for 1,000 images on the machine named below.</p>",
        _table(["attack", "rate", "Wilson 95 %", "images", "seconds"], [*_attack_rows(record)]),
        "<h2>Size of the changes</h2>",
        _table(["", ""], [*_distortion_rows(record["distortion"])]),
        *(part for figure in figures for part in _figure(*figure)),
        "<h2>By class</h2>",
        _table(
            ["true class", "rate", "Wilson 95 %", "images", ""],
            [_rate_row(str(row["class"]), row) for row in record["by_class"]],
        ),
        "<h2>Guards against a wrong evaluation</h2>",
        _table(["guard", "", "found"], [(f["guard"], _status(f["status"]), f["reason"]) for f in record["guards"]]),
        "<h2>Report card</h2>",
        "<p>The checklist of Carlini et al. 2019, <i>On Evaluating Adversarial Robustness</i>, line by line: "
        f"{counts[0]} pass, {counts[1]} warn, {counts[2]} not checked.</p>",
        *_card(record["card"]),
        "<h2>How to repeat it</h2>",
        _table(["", ""], [*_origin_rows(record)]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def in_words(record: Mapping[str, Any]) -> str:
    """The result in a few sentences."""
    success, clean, data = record["success"], record["clean_accuracy"], record["data"]
    if record["goal"] == "targeted":
        reached = f"are classified as class {record['target_class']}"
        counted = f"neither labelled nor classified as class {record['target_class']} when clean"
    else:
        reached, counted = "are misclassified", "classified correctly when clean"
    rivals = [attack for attack in record["attacks"] if attack["images"] == data["images"]]
    strongest = max(rivals, key=lambda attack: attack["success"]["rate"])
    which = "all" if data["all_test_images"] else "the first"
    return (
        f"{success['rate']:.2%} (95 % interval {success['low']:.2%} to {success['high']:.2%}) of the {success['n']:,} "
        f"test images that are {counted} {reached} after AdvGAN changed each pixel by at most "
        f"{record['epsilon']:.3g} of its range. "
        f"The classifier is right on {clean['rate']:.2%} of {which} {data['images']:,} clean test images. "
        f"The strongest other attack on the same images, {strongest['name']}, reaches "
        f"{strongest['success']['rate']:.2%}; "
        f"all attacks together, image by image, {record['worst_case']['rate']:.2%}."
    )


def _data(record: Mapping[str, Any]) -> str:
    data = record["data"]
    which = "all" if data["all_test_images"] else "the first"
    return f"{data['dataset']}, {which} {data['images']:,} of {data['of']:,} test images, SHA-256 {data['sha256']}"


def _success_rows(record: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    yield _rate_row("attack success rate", record["success"])
    yield _rate_row("after rounding to 8 bits", record["success_8_bit"])
    yield _rate_row("saved as floats and read back", record["success_read_back"]["adversarial.npz"])
    yield _rate_row("saved as PNG and read back", record["success_read_back"]["png"])
    yield _rate_row("clean accuracy", record["clean_accuracy"])
    yield _rate_row("accuracy under attack", record["accuracy_under_attack"])
    for other in record["transfer"]:
        yield _rate_row(f"transfer to {other['name']}", other["success"])


def _attack_rows(record: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    yield _rate_row("advgan", record["success"], f"{record['seconds_per_1000_images']:.3f}")
    for attack in record["attacks"]:
        few = "" if attack["images"] == record["data"]["images"] else f" (first {attack['images']:,} images)"
        yield _rate_row(attack["name"] + few, attack["success"], f"{attack['seconds_per_1000_images']:.3f}")
    yield _rate_row("all together, image by image", record["worst_case"])


def _distortion_rows(distortion: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    yield "largest change of a pixel (L_inf)", (f"{distortion['largest_linf']:.7f}", "number")
    for key, name, digits in (
        ("mean_l2", "mean L2", 3),
        ("mean_l0", "mean L0: pixel values that differ", 1),
        ("mean_ssim", "mean SSIM", 4),
        ("mean_psnr", "mean PSNR, dB", 2),
    ):
        value = distortion[key]
        yield name, ("not measured" if value is None else f"{value:.{digits}f}", "number")


def _card(lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for section in dict.fromkeys(line["section"] for line in lines):
        rows = [(x["item"], _status(x["status"]), x["reason"]) for x in lines if x["section"] == section]
        yield f"<h3>{escape(section)}</h3>"
        yield _table(["", "", "why"], rows)


def _origin_rows(record: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    environment = record["environment"]
    yield "command", record["command"]
    yield "commit", record["commit"] or "unknown"
    yield "generator", f"{record['generator']['file']}, SHA-256 {record['generator']['sha256']}"
    yield "target", f"{record['target']['name']}, SHA-256 {record['target']['sha256']}"
    yield "machine", f"{environment['device']}, {environment['cores']} cores"
    yield "versions", ", ".join(f"{name} {environment[name]}" for name in ("python", "tensorflow", "keras", "numpy"))


def _figure(title: str, caption: str, content: bytes) -> Iterable[str]:
    encoded = base64.b64encode(content).decode()
    yield f"<h2>{escape(title)}</h2>"
    yield (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _rate_row(name: str, rate: Mapping[str, Any] | None, last: str = "") -> Sequence[Cell]:
    if rate is None:
        return name, ("not measured", "number"), "", "", ""
    interval = f"{rate['low']:.2%} to {rate['high']:.2%}"
    n = f"{rate['n']:,}"
    return name, (f"{rate['rate']:.2%}", "number"), (interval, "number"), (n, "number"), (last, "number")


def _status(status: str) -> Cell:
    return SIGNS[status], f"status {CLASSES[status]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    rows = list(rows)
    kinds = [cell[1] if isinstance(cell, tuple) else "" for cell in (rows[0] if rows else ())]
    heads = "".join(
        f'<th class="number">{escape(name)}</th>' if kind == "number" else f"<th>{escape(name)}</th>"
        for name, kind in zip(head, kinds, strict=False)
    )
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    top = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f'<div class="table"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    text, kind = cell
    return f'<td class="{kind}">{escape(text)}</td>'
