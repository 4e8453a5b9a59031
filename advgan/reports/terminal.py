"""What a command prints at its end: records as lines of text, and the layout of these tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from advgan.command_line import command_for
from advgan.data.pictures import printable
from advgan.metrics import Rate
from advgan.records.adversarial_training import Defence
from advgan.records.attack import FinishedAttack
from advgan.records.comparison import ComparisonRecord
from advgan.records.evaluation import Evaluation, Transfer
from advgan.records.finding import WARN, Finding
from advgan.records.pixel_search import PixelSearch
from advgan.records.summary import Summary, TowardsClass, mean_success
from advgan.reports.comparison import goal_in_short, target_in_short

Line = tuple[str, str]
"""A name and what stands after it."""
NAMES, RATES = 42, 46
"""Characters of the column of names, and of that of rates where another follows."""
FEW = 5
"""Left-out images that are named."""


def columns(rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """Rows of cells as lines, each column as wide as its longest cell.

    Args:
        rows: the head and what is below it, all of one length.
        left: how many columns are aligned to the left, the others to the right; all by default.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) if left is None else left
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def warnings(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding that warns, for the log."""
    return [f"{found.guard}: {found.reason}. {found.remedy}".rstrip() for found in findings if found.status == WARN]


def warning_lines(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding that warns, for the end of a table."""
    return [f"Warning: {line}" for line in warnings(findings)]


def pixel_lines(search: PixelSearch) -> list[str]:
    """The clean accuracies that decided which pixels a classifier takes."""
    taken = search.taken
    rows = [(tried.name, f"{tried.accuracy}", "taken" * (place == taken)) for place, tried in enumerate(search.tried)]
    return [
        f"Pixels         of {search.classifier}: clean accuracy on validation images, for each pixel range tried",
        *(f"  {line}" for line in columns(rows)),
        f"  {search.tried[taken].name}: {search.reason}",
        *(f"  {remark}" for remark in search.remarks),
    ]


def own_pictures(run: Path, wanted: int | str | None = None) -> str:
    """The command that attacks the user's own pictures; FOLDER stands for theirs.

    Args:
        run: its folder.
        wanted: a class that its generator is to be led towards, where it is for several.
    """
    to = [] if wanted is None else ["--to", str(wanted)]
    return f"Your own pictures: {command_for('attack', 'FOLDER', '--run', run, '--output', 'adversarial/', *to)}"


def run_results(summary: Summary, run_directory: Path) -> list[str]:
    """The table at the end of a run, where the pictures are, and what may come next."""
    test, seconds, black_box = summary.test, summary.seconds, summary.black_box
    validated = black_box is None or black_box.queries["validation"] > 0
    generator = f"best generator (epoch {summary.best_epoch})" if validated else "last generator"
    trained, times = (
        "training: target, generator",
        f"{seconds.target_training:>8.0f} s, {seconds.generator_training:.0f} s",
    )
    if seconds.distillation is not None:
        trained, times = f"{trained}, distillation", f"{times}, {seconds.distillation:.0f} s"
    pictures, wanted, to = [run_directory / "result.png", run_directory / "curves.png"], None, []
    if summary.towards is not None:
        wanted = summary.towards[0].wanted
        pictures, to = [*pictures, run_directory / "success_matrix.png"], ["--to", str(wanted)]
    return [
        "",
        f"On the test images, {generator}, Wilson 95 % intervals:",
        *_lines(
            *_towards(summary.towards, None if summary.data is None else summary.data.class_names),
            ("attack success rate", _rate(test.success)),
            ("  after rounding to 8 bits", _rate(test.success_8_bit)),
            ("clean accuracy of the target", _rate(test.clean_accuracy)),
            *_under_pgd(summary.defence),
            ("accuracy under attack", _rate(test.accuracy_under_attack)),
            ("largest change of a pixel (L_inf)", _number(test.largest_linf, 6)),
            ("mean L2 of the perturbation", _number(test.mean_l2, 2)),
            (trained, times),
            *_cost_of_black_box(summary),
        ),
        "",
        *warning_lines(summary.checks),
        f"Pictures: {', '.join(map(str, pictures))}",
        f"Results:  {run_directory / 'summary.json'}",
        own_pictures(run_directory, wanted),
        f"Next: {command_for('evaluate', '--run', run_directory, *to)}   # other attacks, a report",
    ]


def _under_pgd(defence: Defence | None) -> Iterable[Line]:
    """What a target that was trained to resist keeps of its accuracy."""
    if defence is not None:
        found = defence.robustness
        yield f"  under PGD-40, epsilon {found.epsilon:.3g}", _rate(found.pgd)


def _towards(towards: Sequence[TowardsClass] | None, names: Sequence[str] | None) -> Iterable[Line]:
    """The mean over the classes that are wanted, and the hardest of them."""
    if towards is None:
        return
    hardest = min(towards, key=lambda each: each.success.rate)
    yield f"mean over {len(towards)} target classes", f"{mean_success(towards):>8.2%}"
    named = "" if names is None else f" ({printable(names[hardest.wanted])})"
    yield f"  the hardest, class {hardest.wanted}{named}", _rate(hardest.success)


def _cost_of_black_box(summary: Summary) -> Iterable[Line]:
    """The queries of a black-box run, and the gap to its distilled network."""
    found, images = summary.black_box, summary.test.accuracy_under_attack.n
    if found is None:
        return
    distilled, queries = found.distilled, found.attack_queries
    total = sum(queries.values())
    yield "success on the distilled network", _rate(distilled.success)
    yield from _agreement(distilled.agreement_clean, distilled.agreement_adversarial)
    yield "queries for the attack", f"{total:>8,}   {_by_purpose(queries)}"
    yield "  for each test image", f"{total / images:>10.2f}   ({found.queries['scoring']:,} more to score it)"


def evaluation_results(evaluation: Evaluation, folder: Path) -> list[str]:
    """The table at the end of an evaluation, and where its files are."""
    data, distortion, seconds = evaluation.data, evaluation.distortion, evaluation.seconds_per_1000_images
    whole = f"all {data.images:,}" if data.all_test_images else f"the first {data.images:,} of {data.of:,}"
    return [
        "",
        f"On {whole} test images, Wilson 95 % intervals:",
        *_lines(
            ("attack success rate", _rate(evaluation.success)),
            ("  after rounding to 8 bits", _rate(evaluation.success_8_bit)),
            ("  saved as floats and read back", _rate(evaluation.success_read_back.archive)),
            ("  saved as PNG and read back", _rate(evaluation.success_read_back.png)),
            ("clean accuracy of the target", _rate(evaluation.clean_accuracy)),
            ("accuracy under attack", _rate(evaluation.accuracy_under_attack)),
            ("largest change of a pixel (L_inf)", _number(distortion.largest_linf, 6)),
            ("mean L2", _number(distortion.mean_l2, 2)),
            ("mean L0 (pixel values that differ)", _number(distortion.mean_l0, 1)),
            ("mean SSIM", _number(distortion.mean_ssim, 4)),
            ("mean PSNR, dB", _number(distortion.mean_psnr, 2)),
            *_queries_and_gap(evaluation),
        ),
        "",
        "Other attacks, same images and epsilon (seconds for 1,000 images on the right):",
        *_lines(("advgan", _timed(evaluation.success, seconds)), *_other_attacks(evaluation)),
        "",
        *warning_lines(evaluation.guards),
        f"Report:   {folder / 'report.html'}",
        f"Results:  {folder / 'evaluation.json'}",
    ]


def _other_attacks(evaluation: Evaluation) -> Iterable[Line]:
    for attack in evaluation.attacks:
        few = "" if attack.images == evaluation.data.images else f", first {attack.images:,} images"
        yield attack.name + few, _timed(attack.success, attack.seconds_per_1000_images)
    for missing in evaluation.attacks_left_out:
        yield missing.name, f"       {missing.reason}"
    yield "all together, image by image", _rate(evaluation.worst_case)
    if (gap := evaluation.amortization_gap) is not None:
        yield (
            "PGD along both losses less AdvGAN",
            f"{100 * gap.difference:>7.2f}    [{100 * gap.low:.2f}, {100 * gap.high:.2f}] points",
        )
    for other in evaluation.transfer:
        yield f"transfer to {other.name}", f"{_rate(other.success):<{RATES}}{_clean(other)}"
    for point in evaluation.retrained:
        yield f"retrained at epsilon {point.epsilon:.4g}", _rate(point.success)


def _clean(other: Transfer) -> str:
    """The clean accuracy that a transfer's success is relative to."""
    return f"of a clean accuracy of {other.clean_accuracy.rate:.2%}"


def _queries_and_gap(evaluation: Evaluation) -> Iterable[Line]:
    """The queries of a black box, and how the distilled network answers in its place; nothing for another target."""
    queries, distilled = evaluation.queries, evaluation.distilled
    if queries is None or distilled is None:
        return
    yield "success on the distilled network", _rate(distilled.success)
    yield from _agreement(distilled.agreement_clean.rate, distilled.agreement_adversarial.rate)
    yield "queries for the attack", f"{queries.attack_total:>8,}   {_by_purpose(queries.attack)}"
    yield "  for each image scored", f"{queries.per_image:>11.2f}"
    yield "queries of the evaluation", f"{queries.evaluation:>8,}   not part of the attack"


def comparison_results(comparison: ComparisonRecord, folder: Path) -> list[str]:
    """The table of several runs, what keeps them from being compared, and where the files are."""
    head = ("run", "goal", "epsilon", "target", "clean", "n", "success", "Wilson 95 %", "8 bits", "L2", "SSIM")
    rows = [
        (
            run.run,
            goal_in_short(run),
            f"{run.epsilon:.4g}",
            target_in_short(run),
            f"{run.clean_accuracy.rate:.2%}",
            f"{run.success.n:,}",
            f"{run.success.rate:.2%}",
            _interval(run.success),
            f"{run.success_8_bit.rate:.2%}",
            _number(run.mean_l2, 2).strip(),
            _number(run.mean_ssim, 3).strip(),
            f"{run.strongest_other.name} {run.strongest_other.success.rate:.2%}",
            f"{run.seconds_per_1000_images:.3f}",
        )
        for run in comparison.runs
    ]
    lines = ["", *columns([(*head, "strongest other", "s/1,000"), *rows]), ""]
    for run in comparison.runs:
        if run.differences:
            lines.append(f"Not a fair comparison: {run.run} has {'; '.join(run.differences)}")
        if run.marked:
            lines.append(f"Warning: {run.run} did not pass: {', '.join(run.marked)}")
    return [*lines, f"Report:   {folder / 'comparison.html'}", f"Results:  {folder / 'comparison.json'}"]


def attack_results(attack: FinishedAttack, folder: Path) -> list[str]:
    """The lines at the end of an attack on files: its success, what was left out, and where the files are."""
    line = f"{attack.images:,} {'image' if attack.images == 1 else 'images'} attacked"
    if attack.success is None:
        line += f"; {attack.success_counts}"
    else:
        line += f", success {attack.success} ({attack.success_counts})"
    lines = ["", line, f"Largest change of a pixel {attack.largest_linf:.6f}, mean L2 {attack.mean_l2:.2f}"]
    lines += warning_lines(attack.checks)
    if left_out := attack.left_out:
        some = ", ".join(printable(image.file) for image in left_out[:FEW])
        more = f" and {len(left_out) - FEW:,} more (attack.json names all)" if len(left_out) > FEW else ""
        lines.append(f"Left out: {len(left_out):,} that could not be used: {some}{more}")
    if attack.files.picture is not None:
        lines.append(f"Picture:  {folder / attack.files.picture}")
    return [*lines, f"Table:    {folder / attack.files.table}", f"Results:  {folder / 'attack.json'}"]


def _lines(*lines: Line) -> list[str]:
    return [f"  {name:<{NAMES}}{value}" for name, value in lines]


def _interval(rate: Rate) -> str:
    return f"[{rate.low:.2%}, {rate.high:.2%}]"


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "       not measured"
    return f"{rate.rate:>8.2%}   {_interval(rate)}   n = {rate.n:,}"


def _timed(rate: Rate, seconds: float) -> str:
    return f"{_rate(rate):<{RATES}}{seconds:>10.3f} s"


def _number(value: float | None, digits: int) -> str:
    return f"{'none':>10}" if value is None else f"{value:>10.{digits}f}"


def _agreement(clean: float, adversarial: float) -> Iterable[Line]:
    yield "agreement with it: clean, adversarial", f"{clean:>8.2%}, {adversarial:.2%}"


def _by_purpose(queries: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {purpose}" for purpose, count in queries.items())
