"""``report.html``: an evaluation as one page that needs nothing else, for screens wide and narrow, and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.data.datasets import Split
from advgan.data.pictures import shape_text
from advgan.files import write_text
from advgan.records.evaluation import CardLine, ComparedAttack, Distortion, Evaluation, Queries, QueryPoint
from advgan.records.finding import NOT_CHECKED, PASS, WARN, Status
from advgan.reports.html import Cell, decimal, document, figure, interval, number, rate_row, rate_table, table
from advgan.reports.plots import (
    ClassNames,
    as_png,
    confusion,
    one_of_each_class,
    queries_of_run,
    sample_grid,
    save_figure,
    success_against_epsilon,
    training_curves,
)

MetricsRows = Sequence[dict[str, Any]]
"""Of ``metrics.jsonl``."""
CLASSES: dict[Status, str] = {PASS: "pass", WARN: "warn", NOT_CHECKED: "unchecked"}
PURPOSES = {
    "clean": "clean images, whose answers the distilled network learns",
    "adversarial": "images of the generator so far, whose answers it learns too",
    "validation": "to choose the best generator",
}
GRID, CURVE, PAGE, QUERIES = "grid.png", "success_against_epsilon.png", "report.html", "queries.png"
SIGNS: dict[Status, str] = {PASS: "✓ pass", WARN: "! warn", NOT_CHECKED: "– not checked"}


def page(evaluation: Evaluation, figures: Sequence[tuple[str, str, bytes]]) -> str:
    """The page as HTML.

    Args:
        evaluation: what ``evaluation.json`` holds.
        figures: for each its title, what it shows, and its PNG.
    """
    title = f"AdvGAN evaluation: {evaluation.run}"
    target = evaluation.target.name
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="summary">{escape(in_words(evaluation))}</p>',
        *(
            f'<p class="marked"><b>Warning: {escape(found.guard)}.</b> {escape(found.reason)}. '
            f"{escape(found.remedy)}</p>"
            for found in evaluation.guards
            if found.status == WARN
        ),
        "<h2>Threat model</h2>",
        f"<p>{escape(evaluation.threat_model)}.</p>",
        table(["", ""], [("target", (target, "long")), ("scored", (_data(evaluation), "long"))]),
        *_data_card(evaluation),
        "<h2>Success</h2>",
        rate_table(_success_rows(evaluation)),
        *_black_box(evaluation),
        "<h2>Other attacks</h2>",
        f"<p>Same images, same epsilon. {_followed(evaluation)}Gradients: how often an attack evaluates the "
        "classifier's gradient, in the mean over the images. Seconds are for 1,000 images on the machine named "
        "below.</p>",
        rate_table(_attack_rows(evaluation), "attack", "gradients", "seconds"),
        *_gap(evaluation),
        "<h2>Size of the changes</h2>",
        table(["", ""], _distortion_rows(evaluation.distortion)),
        *_retrained(evaluation),
        *(part for each in figures for part in figure(*each)),
        "<h2>By class</h2>",
        rate_table([rate_row(_class(row.label, evaluation), row.success) for row in evaluation.by_class], "true class"),
        "<h2>Guards against a wrong evaluation</h2>",
        table(
            ["guard", "", "found"],
            [(f.guard, _status(f.status), " ".join((f.reason, f.remedy))) for f in evaluation.guards],
        ),
        *_card(evaluation.card),
        "<h2>How to repeat it</h2>",
        table(["", ""], _origin_rows(evaluation)),
    ]
    return document(title, parts)


def in_words(evaluation: Evaluation) -> str:
    """The result in a few sentences."""
    success, data = evaluation.success, evaluation.data
    if evaluation.goal == "targeted":
        reached = f"are classified as class {evaluation.target_class}"
        counted = f"neither labelled nor classified as class {evaluation.target_class} when clean"
    else:
        reached, counted = "are misclassified", "classified correctly when clean"
    strongest = strongest_other(evaluation)
    target = "The classifier" if evaluation.queries is None else "The black box"
    which = "all" if data.all_test_images else "the first"
    return (
        f"{success.rate:.2%} (95 % interval {interval(success)}) of the {success.n:,} "
        f"test images that are {counted} {reached} after AdvGAN changed each pixel by at most "
        f"{evaluation.epsilon:.3g} of its range. "
        f"{target} is right on {evaluation.clean_accuracy.rate:.2%} of {which} {data.images:,} clean test images. "
        f"The strongest other attack on the same images, {strongest.name}, reaches {strongest.success.rate:.2%}; "
        f"all attacks together, image by image, {evaluation.worst_case.rate:.2%}."
        f"{_queries_in_words(evaluation)}"
    )


def _queries_in_words(evaluation: Evaluation) -> str:
    """What the attack cost in queries to a black box, and the gap; empty for another classifier."""
    queries, distilled = evaluation.queries, evaluation.distilled
    if queries is None or distilled is None:
        return ""
    words = (
        f" Training the attack took {queries.attack_total:,} queries to the black box, {queries.per_image:.3g} "
        f"per image scored; attacking takes none. The distilled network, which it was trained against, is fooled "
        f"by {distilled.success.rate:.2%} of the same images."
    )
    square = evaluation.attack("square")
    if square is not None:
        seen = " and sees only class labels," if queries.answers == "labels" else ","
        words += (
            f" Square, which makes new queries for each image{seen} reaches {square.success.rate:.2%} of the "
            f"first {square.images:,} with at most {square.settings['queries_per_image']:,} queries an image"
            f"{_median(square.median_queries)}; AdvGAN "
            f"reaches {square.advgan_success.rate:.2%} of the same."
        )
    return words


def _median(queries: float | None) -> str:
    return "" if queries is None else f" (median of those fooled: {queries:g})"


def strongest_other(evaluation: Evaluation) -> ComparedAttack:
    """The other attack that succeeds most often, of those that attacked all the images that were scored."""
    rivals = [attack for attack in evaluation.attacks if attack.images == evaluation.data.images]
    return max(rivals, key=lambda attack: attack.success.rate)


def _data(evaluation: Evaluation) -> str:
    data = evaluation.data
    which = "all" if data.all_test_images else "the first"
    return f"{data.dataset}, {which} {data.images:,} of {data.of:,} test images, SHA-256 {data.sha256}"


def _data_card(evaluation: Evaluation) -> Iterable[str]:
    """What the data set is and how it was divided."""
    card = evaluation.data.card
    if card is None:
        return
    resized = "" if card.resized is None else f", resized {card.resized}"
    names = "" if card.class_names is None else f": {', '.join(card.class_names)}"
    streamed = ", read from the disk batch by batch" if card.streamed else ""
    yield "<h2>Data</h2>"
    yield table(
        ["", ""],
        [
            ("source", (f"{card.source}: {card.kind}", "long")),
            ("SHA-256", (card.sha256, "long")),
            ("images", f"{shape_text(card.image_shape)}{resized}"),
            ("training, validation, test", f"{card.training:,}{streamed}; {card.validation:,}; {card.test:,}"),
            ("how they were divided", card.split),
            ("classes", (f"{card.classes}{names}{card.empty_classes and '; '}{card.empty_classes}", "long")),
        ],
    )


def _class(label: int, evaluation: Evaluation) -> str:
    names = evaluation.data.class_names
    return str(label) if names is None else f"{label} {names[label]}"


def _success_rows(evaluation: Evaluation) -> Iterable[Sequence[Cell]]:
    yield rate_row("attack success rate", evaluation.success)
    yield rate_row("after rounding to 8 bits", evaluation.success_8_bit)
    yield rate_row("saved as floats and read back", evaluation.success_read_back.archive)
    yield rate_row("saved as PNG and read back", evaluation.success_read_back.png)
    yield rate_row("clean accuracy", evaluation.clean_accuracy)
    yield rate_row("accuracy under attack", evaluation.accuracy_under_attack)
    for other in evaluation.transfer:
        yield rate_row(f"transfer to {other.name}", other.success)
        yield rate_row(f"clean accuracy of {other.name}", other.clean_accuracy)


def _black_box(evaluation: Evaluation) -> Iterable[str]:
    """The queries and the gap, where the classifier is a black box."""
    queries, distilled = evaluation.queries, evaluation.distilled
    if queries is None or distilled is None:
        return
    yield "<h2>Queries to the black box</h2>"
    yield "<p>A query is one image that the black box classifies for the first time.</p>"
    yield table(["", "images", ""], _query_rows(queries))
    yield "<h2>The gap to the distilled network</h2>"
    yield (
        f"<p>The generator was trained against a {escape(distilled.architecture)} that learnt to answer as the "
        "black box does. Success counts the same images on both.</p>"
    )
    yield rate_table(
        [
            rate_row("success on the black box", evaluation.success),
            rate_row("success on the distilled network", distilled.success),
            rate_row("both give the same class: clean images", distilled.agreement_clean),
            rate_row("both give the same class: adversarial images", distilled.agreement_adversarial),
        ]
    )


def _followed(evaluation: Evaluation) -> str:
    if evaluation.queries is None:
        return ""
    return "Attacks on the distilled network follow its gradient, so they rest on the same queries as AdvGAN. "


def _query_rows(queries: Queries) -> Iterable[Sequence[Cell]]:
    budget = "no budget" if queries.budget is None else f"of a budget of {queries.budget:,}"
    yield "training the attack", number(f"{queries.attack_total:,}"), budget
    for purpose, meaning in PURPOSES.items():
        yield f"– {purpose}", number(f"{queries.attack[purpose]:,}"), meaning
    yield "– for each image scored", number(f"{queries.per_image:.4g}"), "attacking a further one takes none"
    yield "scoring after training", number(f"{queries.scoring_in_training:,}"), "no part of the attack"
    yield "this evaluation", number(f"{queries.evaluation:,}"), "no part of the attack, other attacks included"


def _attack_rows(evaluation: Evaluation) -> Iterable[Sequence[Cell]]:
    yield rate_row("advgan", evaluation.success, "0", f"{evaluation.seconds_per_1000_images:.3f}")
    for attack in evaluation.attacks:
        few = "" if attack.images == evaluation.data.images else f" (first {attack.images:,} images)"
        gradients = "" if attack.gradients_per_image is None else f"{attack.gradients_per_image:.3g}"
        yield rate_row(attack.name + few, attack.success, gradients, f"{attack.seconds_per_1000_images:.3f}")
    for missing in evaluation.attacks_left_out:
        yield missing.name, (missing.reason, "long"), "", "", "", ""
    yield rate_row("all together, image by image", evaluation.worst_case, "", "")


def _gap(evaluation: Evaluation) -> Iterable[str]:
    """What attacking in one pass costs."""
    if (gap := evaluation.amortization_gap) is not None:
        yield (
            "<p>The amortization gap, the success of PGD (along cross-entropy and, where that fails, the margin of "
            f"logits) less AdvGAN's on the same {gap.first.n:,} images: {escape(str(gap))} (95 % interval of a paired "
            f"difference). PGD alone succeeds on {gap.only_first:,} of them, AdvGAN alone on {gap.only_second:,}.</p>"
        )


def _distortion_rows(distortion: Distortion) -> Iterable[Sequence[Cell]]:
    yield "largest change of a pixel (L_inf)", decimal(distortion.largest_linf, 7)
    yield "mean L2", decimal(distortion.mean_l2, 3)
    yield "mean L0: pixel values that differ", decimal(distortion.mean_l0, 1)
    yield "mean SSIM", decimal(distortion.mean_ssim, 4)
    yield "mean PSNR, dB", decimal(distortion.mean_psnr, 2)


def _retrained(evaluation: Evaluation) -> Iterable[str]:
    if evaluation.retrained:
        yield "<h2>Retrained at other epsilons</h2>"
        yield "<p>The same settings with another epsilon, against the run's own target; scored on the same images.</p>"
        yield rate_table([rate_row(f"{point.epsilon:.4g}", point.success) for point in evaluation.retrained], "epsilon")


def _card(lines: Sequence[CardLine]) -> Iterable[str]:
    counts = [f"{sum(line.status == status for line in lines)} {status}" for status in (PASS, WARN, NOT_CHECKED)]
    yield "<h2>Report card</h2>"
    yield (
        "<p>The checklist of Carlini et al. 2019, <i>On Evaluating Adversarial Robustness</i>, line by line: "
        f"{', '.join(counts)}.</p>"
    )
    for section in dict.fromkeys(line.section for line in lines):
        rows = [(line.item, _status(line.status), line.reason) for line in lines if line.section == section]
        yield f"<h3>{escape(section)}</h3>"
        yield table(["checklist", "", "why"], rows)


def _origin_rows(evaluation: Evaluation) -> Iterable[Sequence[Cell]]:
    environment = evaluation.environment
    yield "command", evaluation.command
    yield "commit", evaluation.commit or "unknown"
    yield "generator", f"{evaluation.generator.file}, SHA-256 {evaluation.generator.sha256}"
    yield "target", f"{evaluation.target.name}, SHA-256 {evaluation.target.sha256}"
    yield "machine", f"{environment['device']}, {environment['cores']} cores"
    yield "versions", ", ".join(f"{name} {environment[name]}" for name in ("python", "tensorflow", "keras", "numpy"))


def _status(status: Status) -> Cell:
    return SIGNS[status], f"status {CLASSES[status]}"


def draw_grid(
    folder: Path, attack: AdvGANAttack, test: Split, clean_predictions: np.ndarray, names: ClassNames = None
) -> str | None:
    """Draw one image of each class, clean and adversarial; the file's name, None where no image is classified right."""
    sample = one_of_each_class(test, clean_predictions)
    if not len(sample):
        return None
    title = f"Test images, epsilon {attack.epsilon:.3g}, {attack.goal}"
    save_figure(sample_grid(attack, sample, title, names), folder / GRID)
    return GRID


def draw_curve(folder: Path, evaluation: Evaluation) -> None:
    """Draw success against epsilon."""
    others = [(attack.name, attack.success) for attack in evaluation.attacks]
    figure = success_against_epsilon(evaluation.curve, evaluation.epsilon, others, evaluation.retrained)
    save_figure(figure, folder / CURVE)


def draw_queries(folder: Path, evaluation: Evaluation, rows: MetricsRows) -> None:
    """Draw success against queries where the classifier is a black box.

    Args:
        folder: of the results.
        evaluation: what ``evaluation.json`` holds.
        rows: of the run's ``metrics.jsonl``.
    """
    queries = evaluation.queries
    if queries is None:
        return
    images, square = evaluation.data.images, evaluation.attack("square")
    attacked = 0 if square is None else square.images
    points = validated(rows, images)
    figure = queries_of_run(queries, evaluation.success, evaluation.queries_curve, points, images, attacked)
    save_figure(figure, folder / QUERIES)


def write_page(folder: Path, evaluation: Evaluation, rows: MetricsRows) -> None:
    """Write ``report.html``, its figures inside.

    Args:
        folder: which holds the pictures already.
        evaluation: what ``evaluation.json`` holds.
        rows: of the run's ``metrics.jsonl``.
    """
    epsilon = evaluation.epsilon
    figures = []
    if evaluation.files.grid:
        caption = f"One test image of each class: clean, the signed change (scale: {epsilon:.3g}), adversarial."
        figures.append(("Images", caption, (folder / GRID).read_bytes()))
    caption = f"AdvGAN's perturbation scaled to epsilon 0 to 1; trained at {epsilon:.3g}, where the other attacks ran."
    if evaluation.retrained:
        caption += " Squares: generators trained at their own epsilon, against the run's own target."
    figures.append(("Success against epsilon", caption, (folder / CURVE).read_bytes()))
    if evaluation.queries is not None:
        caption = (
            "AdvGAN queries while it is trained and then attacks without a query: its queries are divided by the "
            "images scored, so each further image would move its point to the left. Square searches for each image "
            "separately; its curve is the share of its images that were fooled by then. Two queries of the same image "
            "count once."
        )
        figures.append(("Success against queries", caption, (folder / QUERIES).read_bytes()))
    matrices = confusion(
        np.array(evaluation.confusion_clean), np.array(evaluation.confusion_under_attack), evaluation.data.class_names
    )
    figures.append(("Answers before and under attack", "Images by true class and answer.", as_png(matrices)))
    if any(row["kind"] == "steps" for row in rows):
        curves = training_curves(rows)
        figures.append(("Training", "Losses, success and what the discriminator gets right.", as_png(curves)))
    write_text(folder / PAGE, page(evaluation, figures))


def validated(rows: MetricsRows, images: int) -> list[QueryPoint]:
    """The success on validation images while the attack was trained, at the queries that had been made by then.

    Args:
        rows: of the run's ``metrics.jsonl``.
        images: how many were scored; queries are divided by it.
    """
    return [
        QueryPoint(queries_per_image=row["queries"] / images, success=row["validation_success"])
        for row in rows
        if row["kind"] == "epoch" and "queries" in row
    ]
