"""Several evaluations side by side: the figures of each, and in words what keeps it from a fair comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from advgan.records.comparison import ComparedRun, ComparisonRecord, StrongestOther
from advgan.records.evaluation import Evaluation
from advgan.records.finding import WARN
from advgan.reports.evaluation_page import strongest_other
from advgan.reports.html import Cell, decimal, document, figure, number, stacked, table


def compared(evaluations: Sequence[Evaluation]) -> tuple[ComparedRun, ...]:
    """A row for each evaluation, in the order given; the first is what the others are compared with."""
    return tuple(_row(evaluation, evaluations[0]) for evaluation in evaluations)


def _row(evaluation: Evaluation, first: Evaluation) -> ComparedRun:
    strongest = strongest_other(evaluation)
    apart = differences(evaluation, first)
    return ComparedRun(
        run=evaluation.run,
        threat_model=evaluation.threat_model,
        goal=evaluation.goal,
        target_class=evaluation.target_class,
        epsilon=evaluation.epsilon,
        target=evaluation.target,
        data=evaluation.data,
        options=evaluation.options,
        clean_accuracy=evaluation.clean_accuracy,
        success=evaluation.success,
        success_8_bit=evaluation.success_8_bit,
        mean_l2=evaluation.distortion.mean_l2,
        mean_ssim=evaluation.distortion.mean_ssim,
        strongest_other=StrongestOther(name=strongest.name, success=strongest.success),
        seconds_per_1000_images=evaluation.seconds_per_1000_images,
        fair=not apart,
        differences=tuple(apart),
        marked=tuple(found.guard for found in evaluation.guards if found.status == WARN),
        curve=evaluation.curve,
    )


def differences(evaluation: Evaluation, first: Evaluation) -> list[str]:
    """What keeps an evaluation from being compared with the first one, one phrase each; empty where nothing does."""
    found = []
    data, others = evaluation.data, first.data
    if data.sha256 != others.sha256:
        found.append(f"other data ({data.dataset}, not {others.dataset})")
    if data.images != others.images:
        found.append(f"another number of images ({data.images:,}, not {others.images:,})")
    elif data.images_sha256 != others.images_sha256:
        found.append("other images")
    if evaluation.target.identity != first.target.identity:
        found.append(f"another target ({target_in_short(evaluation)}, not {target_in_short(first)})")
    if evaluation.epsilon != first.epsilon:
        found.append(f"another epsilon ({evaluation.epsilon:.4g}, not {first.epsilon:.4g})")
    if goal_in_short(evaluation) != goal_in_short(first):
        found.append(f"another goal ({goal_in_short(evaluation)}, not {goal_in_short(first)})")
    known = ["its gradients" if each.queries is None else "only its answers" for each in (evaluation, first)]
    if known[0] != known[1]:
        found.append(f"other knowledge of the target ({known[0]}, not {known[1]})")
    elif evaluation.options != first.options:
        found.append(
            "other settings of the other attacks (restarts of PGD, images of FMN or Square, queries of Square)"
        )
    return found


def goal_in_short(run: Evaluation | ComparedRun) -> str:
    """The goal as it fits into a table."""
    return "untargeted" if run.target_class is None else f"class {run.target_class}"


def target_in_short(run: Evaluation | ComparedRun) -> str:
    """The start of the digest that tells the target from others."""
    return run.target.identity[:8]


def comparison_page(comparison: ComparisonRecord, picture: bytes) -> str:
    """``comparison.html``.

    Args:
        comparison: what ``comparison.json`` holds.
        picture: success against epsilon, the content of a PNG file.
    """
    runs = comparison.runs
    title = f"AdvGAN: {len(runs)} runs compared"
    head = ("run", "success", "after 8 bits", "n", "goal", "epsilon", "target, clean", "L2", "SSIM", "strongest other")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="summary">{escape(_in_words(runs))}</p>',
        *(
            f'<p class="marked"><b>Not a fair comparison: {escape(run.run)}</b> has '
            f"{escape('; '.join(run.differences))}.</p>"
            for run in runs
            if run.differences
        ),
        *(
            f'<p class="marked"><b>Warning: {escape(run.run)}</b> did not pass: {escape(", ".join(run.marked))}; '
            "see its own report.</p>"
            for run in runs
            if run.marked
        ),
        "<h2>Figures</h2>",
        "<p>Rates with their Wilson 95 % intervals; seconds are for 1,000 images; L2 and SSIM are means.</p>",
        table([*head, "seconds"], [_cells(run) for run in runs]),
        *figure(
            "Success against epsilon", "Each trained perturbation scaled from 0 to 1; trained at the diamond.", picture
        ),
        "<h2>Threat models</h2>",
        table(["run", ""], [(run.run, run.threat_model) for run in runs]),
        "<h2>How to repeat it</h2>",
        table(["", ""], [("command", comparison.command), ("commit", comparison.commit or "unknown")]),
    ]
    return document(title, parts, wide=True)


def _in_words(runs: Sequence[ComparedRun]) -> str:
    fair = [run for run in runs if run.fair]
    aside = len(runs) - len(fair)
    words = f"Compared with the first, {runs[0].run}. "
    if aside:
        words += f"{aside} of {len(runs)} cannot be compared with it fairly; what differs is named below. "
    if len(fair) > 1:
        best = max(fair, key=lambda run: run.success.rate)
        words += f"Of those that can, {best.run} succeeds most often: {best.success.rate:.2%}."
    return words.strip()


def _cells(run: ComparedRun) -> Sequence[Cell]:
    strongest = run.strongest_other
    return (
        run.run if run.fair else f"{run.run} (not comparable)",
        number(stacked(run.success)),
        number(stacked(run.success_8_bit)),
        number(f"{run.success.n:,}"),
        goal_in_short(run),
        number(f"{run.epsilon:.4g}"),
        number(f"{target_in_short(run)}\n{run.clean_accuracy.rate:.2%}"),
        decimal(run.mean_l2, 2),
        decimal(run.mean_ssim, 3),
        number(f"{strongest.name}\n{stacked(strongest.success)}"),
        decimal(run.seconds_per_1000_images, 3),
    )
