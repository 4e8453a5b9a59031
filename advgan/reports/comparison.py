"""Several evaluations side by side: the figures of each, and in words what keeps it from a fair comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from advgan.reports.evaluation_page import strongest_other
from advgan.reports.html import Cell, document, figure, table

Record = dict[str, Any]


def compared(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """A row for each evaluation, in the order given.

    Args:
        records: the content of each ``evaluation.json``. The first is what the others are compared with.
    """
    return [_row(record, records[0]) for record in records]


def _row(record: Mapping[str, Any], first: Mapping[str, Any]) -> Record:
    distortion, strongest = record["distortion"], strongest_other(record)
    kept = ("run", "threat_model", "goal", "target_class", "epsilon", "target", "data", "options", "clean_accuracy")
    return {
        **{key: record[key] for key in kept},
        "success": record["success"],
        "success_8_bit": record["success_8_bit"],
        "mean_l2": distortion["mean_l2"],
        "mean_ssim": distortion["mean_ssim"],
        "strongest_other": {"name": strongest["name"], "success": strongest["success"]},
        "seconds_per_1000_images": record["seconds_per_1000_images"],
        "fair": not differences(record, first),
        "differences": differences(record, first),
        "marked": [found["guard"] for found in record["guards"] if found["status"] == "warn"],
        "curve": record["curve"],
    }


def differences(record: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """What keeps an evaluation from being compared with the first one, one phrase each; empty where nothing does."""
    found = []
    data, others = record["data"], first["data"]
    if data["sha256"] != others["sha256"]:
        found.append(f"other data ({data['dataset']}, not {others['dataset']})")
    if data["images"] != others["images"]:
        found.append(f"another number of images ({data['images']:,}, not {others['images']:,})")
    elif data["images_sha256"] != others["images_sha256"]:
        found.append("other images")
    if _identity(record["target"]) != _identity(first["target"]):
        found.append(f"another target ({target_in_short(record)}, not {target_in_short(first)})")
    if record["epsilon"] != first["epsilon"]:
        found.append(f"another epsilon ({record['epsilon']:.4g}, not {first['epsilon']:.4g})")
    if goal_in_short(record) != goal_in_short(first):
        found.append(f"another goal ({goal_in_short(record)}, not {goal_in_short(first)})")
    known = ["only its answers" if "queries" in each else "its gradients" for each in (record, first)]
    if known[0] != known[1]:
        found.append(f"another knowledge of the target ({known[0]}, not {known[1]})")
    elif record["options"] != first["options"]:
        found.append(
            "other settings of the other attacks (restarts of PGD, images of FMN or Square, queries of Square)"
        )
    return found


def goal_in_short(record: Mapping[str, Any]) -> str:
    """The goal as a table has room for."""
    return "untargeted" if record["target_class"] is None else f"class {record['target_class']}"


def target_in_short(record: Mapping[str, Any]) -> str:
    """The start of the digest that tells the target from others."""
    return _identity(record["target"])[:8]


def _identity(target: Mapping[str, Any]) -> str:
    """The digest of a network's weights, where it has some: two files of one network differ."""
    return target["weights_sha256"] or target["sha256"]


def comparison_page(comparison: Mapping[str, Any], picture: bytes) -> str:
    """``comparison.html``.

    Args:
        comparison: the content of ``comparison.json``.
        picture: success against epsilon, the content of a PNG file.
    """
    runs = comparison["runs"]
    title = f"AdvGAN: {len(runs)} runs compared"
    head = ("run", "success", "after 8 bits", "n", "goal", "epsilon", "target, clean", "L2", "SSIM", "strongest other")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="summary">{escape(_in_words(runs))}</p>',
        *(
            f'<p class="marked"><b>Not a fair comparison: {escape(run["run"])}</b> has '
            f"{escape('; '.join(run['differences']))}.</p>"
            for run in runs
            if run["differences"]
        ),
        *(
            f'<p class="marked"><b>Marked: {escape(run["run"])}</b> by {escape(", ".join(run["marked"]))}; '
            "its own report says what to do.</p>"
            for run in runs
            if run["marked"]
        ),
        "<h2>Figures</h2>",
        "<p>Rates with their Wilson 95 % intervals; seconds are for 1,000 images; L2 and SSIM are means.</p>",
        table([*head, "seconds"], [_cells(run) for run in runs]),
        *figure(
            "Success against epsilon", "Each trained perturbation scaled from 0 to 1; trained at the diamond.", picture
        ),
        "<h2>Threat models</h2>",
        table(["run", ""], [(run["run"], run["threat_model"]) for run in runs]),
        "<h2>How to repeat it</h2>",
        table(["", ""], [("command", comparison["command"]), ("commit", comparison["commit"] or "unknown")]),
    ]
    return document(title, parts, wide=True)


def _in_words(runs: Sequence[Mapping[str, Any]]) -> str:
    fair = [run for run in runs if run["fair"]]
    aside = len(runs) - len(fair)
    words = f"Compared with the first, {runs[0]['run']}. "
    if aside:
        words += f"{aside} of {len(runs)} cannot be compared with it fairly; what differs is named below. "
    if len(fair) > 1:
        best = max(fair, key=lambda run: run["success"]["rate"])
        words += f"Of those that can, {best['run']} succeeds most often: {best['success']['rate']:.2%}."
    return words.strip()


def _cells(run: Mapping[str, Any]) -> Sequence[Cell]:
    def number(value: float | None, digits: int) -> Cell:
        return "not measured" if value is None else f"{value:.{digits}f}", "number"

    strongest = run["strongest_other"]
    return (
        run["run"] if run["fair"] else f"{run['run']} (not comparable)",
        (_rate(run["success"]), "number"),
        (_rate(run["success_8_bit"]), "number"),
        (f"{run['success']['n']:,}", "number"),
        goal_in_short(run),
        (f"{run['epsilon']:.4g}", "number"),
        (f"{target_in_short(run)}\n{run['clean_accuracy']['rate']:.2%}", "number"),
        number(run["mean_l2"], 2),
        number(run["mean_ssim"], 3),
        (f"{strongest['name']}\n{_rate(strongest['success'])}", "number"),
        number(run["seconds_per_1000_images"], 3),
    )


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['rate']:.2%}\n{rate['low']:.2%} to {rate['high']:.2%}"
