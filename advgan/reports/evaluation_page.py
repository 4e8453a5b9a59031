"""``report.html``: an evaluation as one page that needs nothing else, for screens wide and narrow, and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.data.datasets import Split
from advgan.files import write_text
from advgan.reports.html import Cell, document, figure, table
from advgan.reports.plots import (
    as_png,
    confusion,
    one_of_each_class,
    queries_of_run,
    sample_grid,
    save_figure,
    success_against_epsilon,
    training_curves,
)

Record = dict[str, Any]
CLASSES = {"pass": "pass", "warn": "warn", "not checked": "unchecked"}
PURPOSES = {
    "clean": "clean images, whose answers the distilled network learns",
    "adversarial": "images of the generator so far, whose answers it learns too",
    "validation": "to choose the best generator",
}
GRID, CURVE, PAGE, QUERIES = "grid.png", "success_against_epsilon.png", "report.html", "queries.png"
SIGNS = {"pass": "✓ pass", "warn": "! warn", "not checked": "– not checked"}


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
        *(
            f'<p class="marked"><b>Marked: {escape(f["guard"])}.</b> {escape(f["reason"])}. {escape(f["remedy"])}</p>'
            for f in marked
        ),
        "<h2>Threat model</h2>",
        f"<p>{escape(record['threat_model'])}.</p>",
        table(["", ""], [("target", (record["target"]["name"], "long")), ("data", (_data(record), "long"))]),
        "<h2>Success</h2>",
        table(["", "rate", "Wilson 95 %", "images", ""], [*_success_rows(record)]),
        *_black_box(record),
        "<h2>Beside other attacks</h2>",
        f"<p>Same images, same epsilon. {_followed(record)}Seconds are for 1,000 images on the machine named "
        "below.</p>",
        table(["attack", "rate", "Wilson 95 %", "images", "seconds"], [*_attack_rows(record)]),
        "<h2>Size of the changes</h2>",
        table(["", ""], [*_distortion_rows(record["distortion"])]),
        *_retrained(record),
        *(part for each in figures for part in figure(*each)),
        "<h2>By class</h2>",
        table(
            ["true class", "rate", "Wilson 95 %", "images", ""],
            [_rate_row(str(row["class"]), row) for row in record["by_class"]],
        ),
        "<h2>Guards against a wrong evaluation</h2>",
        table(
            ["guard", "", "found"],
            [(f["guard"], _status(f["status"]), " ".join((f["reason"], f["remedy"]))) for f in record["guards"]],
        ),
        "<h2>Report card</h2>",
        "<p>The checklist of Carlini et al. 2019, <i>On Evaluating Adversarial Robustness</i>, line by line: "
        f"{counts[0]} pass, {counts[1]} warn, {counts[2]} not checked.</p>",
        *_card(record["card"]),
        "<h2>How to repeat it</h2>",
        table(["", ""], [*_origin_rows(record)]),
    ]
    return document(title, parts)


def in_words(record: Mapping[str, Any]) -> str:
    """The result in a few sentences."""
    success, clean, data = record["success"], record["clean_accuracy"], record["data"]
    if record["goal"] == "targeted":
        reached = f"are classified as class {record['target_class']}"
        counted = f"neither labelled nor classified as class {record['target_class']} when clean"
    else:
        reached, counted = "are misclassified", "classified correctly when clean"
    strongest = strongest_other(record)
    target = "The classifier" if "queries" not in record else "The black box"
    which = "all" if data["all_test_images"] else "the first"
    return (
        f"{success['rate']:.2%} (95 % interval {success['low']:.2%} to {success['high']:.2%}) of the {success['n']:,} "
        f"test images that are {counted} {reached} after AdvGAN changed each pixel by at most "
        f"{record['epsilon']:.3g} of its range. "
        f"{target} is right on {clean['rate']:.2%} of {which} {data['images']:,} clean test images. "
        f"The strongest other attack on the same images, {strongest['name']}, reaches "
        f"{strongest['success']['rate']:.2%}; "
        f"all attacks together, image by image, {record['worst_case']['rate']:.2%}."
        f"{_queries_in_words(record)}"
    )


def _queries_in_words(record: Mapping[str, Any]) -> str:
    """What a black box was asked to make the attack, and the gap; empty for another classifier."""
    if "queries" not in record:
        return ""
    queries, distilled = record["queries"], record["distilled"]
    words = (
        f" Training the attack took {queries['attack_total']:,} queries to the black box, {queries['per_image']:.3g} "
        f"for each image scored; attacking takes none. The distilled network, which it was trained against, is fooled "
        f"by {distilled['success']['rate']:.2%} of the same images."
    )
    square = next((attack for attack in record["attacks"] if attack["name"] == "square"), None)
    if square is not None:
        told = ", told the class alone," if queries["answers"] == "labels" else ","
        words += (
            f" Square, which asks for each image anew{told} reaches {square['success']['rate']:.2%} of the "
            f"first {square['images']:,} with at most {square['settings']['queries_per_image']:,} queries an image"
            f"{_median(square['median_queries'])}; AdvGAN "
            f"reaches {square['advgan_success']['rate']:.2%} of the same."
        )
    return words


def _median(queries: float | None) -> str:
    return "" if queries is None else f" (median of those fooled: {queries:g})"


def strongest_other(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The other attack that succeeds most often, of those that attacked all the images that were scored."""
    rivals = [attack for attack in record["attacks"] if attack["images"] == record["data"]["images"]]
    return max(rivals, key=lambda attack: attack["success"]["rate"])


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
        yield _rate_row(f"clean accuracy of {other['name']}", other["clean_accuracy"])


def _black_box(record: Mapping[str, Any]) -> Iterable[str]:
    """The queries and the gap, where the classifier is a black box."""
    if "queries" not in record:
        return
    queries, distilled = record["queries"], record["distilled"]
    yield "<h2>Queries to the black box</h2>"
    yield "<p>A query is one image that it was asked about and had not been asked about before.</p>"
    yield table(["", "images", ""], [*_query_rows(queries)])
    yield "<h2>The gap to the distilled network</h2>"
    yield (
        f"<p>The generator was trained against a {escape(distilled['architecture'])} that learnt to answer as the "
        "black box does. Success counts the same images on both.</p>"
    )
    rows = [
        _rate_row("success on the black box", record["success"]),
        _rate_row("success on the distilled network", distilled["success"]),
        _rate_row("both give the same class: clean images", distilled["agreement_clean"]),
        _rate_row("both give the same class: adversarial images", distilled["agreement_adversarial"]),
    ]
    yield table(["", "rate", "Wilson 95 %", "images", ""], rows)


def _followed(record: Mapping[str, Any]) -> str:
    if "queries" not in record:
        return ""
    return "Attacks on the distilled network follow its gradient, so they rest on the same queries as AdvGAN. "


def _query_rows(queries: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    budget = "no budget" if queries["budget"] is None else f"of a budget of {queries['budget']:,}"
    yield "training the attack", (f"{queries['attack_total']:,}", "number"), budget
    for purpose, meaning in PURPOSES.items():
        yield f"– {purpose}", (f"{queries['attack'][purpose]:,}", "number"), meaning
    yield "– for each image scored", (f"{queries['per_image']:.4g}", "number"), "attacking a further one takes none"
    yield "scoring it when it was trained", (f"{queries['scoring_in_training']:,}", "number"), "no part of the attack"
    yield "this evaluation", (f"{queries['evaluation']:,}", "number"), "no part of the attack, other attacks included"


def _attack_rows(record: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    yield _rate_row("advgan", record["success"], f"{record['seconds_per_1000_images']:.3f}")
    for attack in record["attacks"]:
        few = "" if attack["images"] == record["data"]["images"] else f" (first {attack['images']:,} images)"
        yield _rate_row(attack["name"] + few, attack["success"], f"{attack['seconds_per_1000_images']:.3f}")
    for missing in record.get("attacks_left_out", []):
        yield missing["name"], (missing["reason"], "long"), "", "", ""
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


def _retrained(record: Mapping[str, Any]) -> Iterable[str]:
    if record["retrained"]:
        yield "<h2>Trained anew at other epsilons</h2>"
        yield "<p>The same settings with another epsilon, against the run's own target; scored on the same images.</p>"
        rows = [_rate_row(f"{point['epsilon']:.4g}", point["success"]) for point in record["retrained"]]
        yield table(["epsilon", "rate", "Wilson 95 %", "images", ""], rows)


def _card(lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for section in dict.fromkeys(line["section"] for line in lines):
        rows = [(x["item"], _status(x["status"]), x["reason"]) for x in lines if x["section"] == section]
        yield f"<h3>{escape(section)}</h3>"
        yield table(["checklist", "", "why"], rows)


def _origin_rows(record: Mapping[str, Any]) -> Iterable[Sequence[Cell]]:
    environment = record["environment"]
    yield "command", record["command"]
    yield "commit", record["commit"] or "unknown"
    yield "generator", f"{record['generator']['file']}, SHA-256 {record['generator']['sha256']}"
    yield "target", f"{record['target']['name']}, SHA-256 {record['target']['sha256']}"
    yield "machine", f"{environment['device']}, {environment['cores']} cores"
    yield "versions", ", ".join(f"{name} {environment[name]}" for name in ("python", "tensorflow", "keras", "numpy"))


def _rate_row(name: str, rate: Mapping[str, Any] | None, last: str = "") -> Sequence[Cell]:
    if rate is None:
        return name, ("not measured", "number"), "", "", ""
    interval = f"{rate['low']:.2%} to {rate['high']:.2%}"
    n = f"{rate['n']:,}"
    return name, (f"{rate['rate']:.2%}", "number"), (interval, "number"), (n, "number"), (last, "number")


def _status(status: str) -> Cell:
    return SIGNS[status], f"status {CLASSES[status]}"


def draw_grid(folder: Path, attack: AdvGANAttack, test: Split, clean_predictions: np.ndarray) -> str | None:
    """Draw one image of each class, clean and adversarial; the file's name, None where no image is classified right."""
    sample = one_of_each_class(test, clean_predictions)
    if not len(sample):
        return None
    title = f"Test images, epsilon {attack.epsilon:.3g}, {attack.goal}"
    save_figure(sample_grid(attack, sample, title), folder / GRID)
    return GRID


def draw_curve(folder: Path, record: Record) -> None:
    """Draw success against epsilon."""
    others = [(attack["name"], attack["success"]) for attack in record["attacks"]]
    figure = success_against_epsilon(record["curve"], record["epsilon"], others, record["retrained"])
    save_figure(figure, folder / CURVE)


def draw_queries(folder: Path, record: Record, rows: list[Record]) -> None:
    """Draw success against queries where the classifier is a black box, and say so in the record.

    Args:
        folder: of the results.
        record: the content of ``evaluation.json``; ``files`` is added to.
        rows: of the run's ``metrics.jsonl``.
    """
    if "queries" not in record:
        return
    images = record["data"]["images"]
    attacked = next((attack["images"] for attack in record["attacks"] if attack["name"] == "square"), 0)
    points = validated(rows, images)
    figure = queries_of_run(record["queries"], record["success"], record["queries_curve"], points, images, attacked)
    save_figure(figure, folder / QUERIES)
    record["files"]["queries"] = QUERIES


def write_page(folder: Path, record: Record, rows: list[dict[str, Any]]) -> None:
    """Write ``report.html``, its figures inside.

    Args:
        folder: which holds the pictures already.
        record: the content of ``evaluation.json``.
        rows: of the run's ``metrics.jsonl``.
    """
    epsilon = record["epsilon"]
    figures = []
    if record["files"]["grid"]:
        caption = f"One test image of each class: clean, the signed change (scale: {epsilon:.3g}), adversarial."
        figures.append(("Images", caption, (folder / GRID).read_bytes()))
    caption = f"The trained perturbation scaled from 0 to 1; trained at {epsilon:.3g}. Other attacks at that epsilon."
    if record["retrained"]:
        caption += " Squares: generators trained at their own epsilon, against the run's own target."
    figures.append(("Success against epsilon", caption, (folder / CURVE).read_bytes()))
    if "queries" in record:
        caption = (
            "AdvGAN asks while it is trained and then attacks without asking: its queries are divided by the images "
            "scored, so each further image would move its point to the left. Square searches for each image anew; its "
            "curve is the share of its images that were fooled by then. Asking about an image twice counts once."
        )
        figures.append(("Success against queries", caption, (folder / QUERIES).read_bytes()))
    matrices = confusion(np.array(record["confusion_clean"]), np.array(record["confusion_under_attack"]))
    figures.append(("Answers before and under attack", "Images by true class and answer.", as_png(matrices)))
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("steps", "epoch")}
    if kinds["steps"]:
        curves = training_curves(kinds["steps"], kinds["epoch"])
        figures.append(("Training", "Losses, success and what the discriminator gets right.", as_png(curves)))
    write_text(folder / PAGE, page(record, figures))


def validated(rows: Sequence[Record], images: int) -> list[Record]:
    """The success on validation images while the attack was trained, at the queries that had been asked by then.

    Args:
        rows: of the run's ``metrics.jsonl``.
        images: how many were scored; queries are divided by it.
    """
    return [
        {"queries_per_image": row["queries"] / images, "success": row["validation_success"]}
        for row in rows
        if row["kind"] == "epoch" and "queries" in row
    ]
