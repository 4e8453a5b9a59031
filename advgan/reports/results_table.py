"""Tables of several runs as Markdown, made from their records and from nothing else."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from advgan.metrics import PairedDifference, Rate
from advgan.records.evaluation import ComparedAttack, QueryCurve
from advgan.records.results_table import DoneRun, FailedRun, TableRecord, TableRow, TableSection
from advgan.reports.plots import AttackPoint

NONE = "–"
TRAINING_QUERIES = ("clean", "adversarial", "validation")
"""The queries that make the attack; those that score it are the experimenter's."""
_LEGEND = (
    "Rates are in per cent. Success is the mean of the seeds, in brackets the smallest and the largest of them. The "
    "Wilson 95 % interval is for the attacked images of all seeds taken together; how far seeds differ is not in it. "
    "After 8 bits: the same success once the adversarial images are rounded to 8 bits. Time is the training of the "
    "attack, without that of the classifier it attacks: mean of the seeds."
)
_BLACK_BOX_LEGEND = (
    " On the distilled network: success where the attack was trained; the distance to success on the black box is "
    "what does not transfer. Queries: images sent to the black box in training and validation, in total and for "
    "each attacked test image; attacking costs none."
)


def as_markdown(record: TableRecord) -> str:
    """The page of a table, made from the runs that are done or failed."""
    runs, sections = record.runs, record.sections
    wanted = sum(len(row.seeds) for section in sections for row in section.rows)
    done = [run for run in runs if isinstance(run, DoneRun)]
    parts = [f"# {record.title}"]
    if record.text:
        parts.append(record.text.strip())
    if len(done) < wanted:
        parts.append(f"**Not finished: {len(done)} of {wanted} results are there.**")
    black_box = any(row.black_box for section in sections for row in section.rows)
    if any(section.attack_images is None for section in sections):
        parts.append(_LEGEND + (_BLACK_BOX_LEGEND if black_box else ""))
    for section in sections:
        parts += _section(section, [run for run in runs if run.section == section.title])
    return "\n\n".join([*parts, *_origin(record.command, done)]) + "\n"


def points_against_queries(
    section: TableSection, runs: Iterable[DoneRun | FailedRun]
) -> tuple[list[AttackPoint], list[QueryCurve]]:
    """What a picture of success against queries shows.

    Args:
        section: of the table.
        runs: of any sections.

    Returns:
        A point for each black-box row that has a run, its success that of all seeds; and the curves of other attacks,
        as these runs' evaluations have them, each name once.
    """
    points: list[AttackPoint] = []
    curves: dict[str, QueryCurve] = {}
    for row in section.rows:
        done = _done(row, [run for run in runs if run.section == section.title])
        for run in done:
            if (curve := run.queries_curve) is not None:
                curves.setdefault(curve.name, curve)
        if done and all(run.queries is not None for run in done):
            points.append(AttackPoint(row.name, _mean(done, _queries_per_image), _pooled(done)))
    return points, list(curves.values())


def _attack_section(section: TableSection, runs: Sequence[DoneRun | FailedRun]) -> list[str]:
    """The rows of a section that shows the other attacks beside AdvGAN."""
    rows, images = section.rows, section.attack_images
    names = list(dict.fromkeys(attack.name for run in runs if isinstance(run, DoneRun) for attack in run.attacks))
    names = [name for name in names if "noise" not in name]
    left, black_box = section.show == "accuracy", any(row.black_box for row in rows)
    of_target = ["clean accuracy", *(["black box under PGD"] if black_box else [])]
    head = ["row", "seeds", *of_target, *names, "AdvGAN", "gap", "paper", "target, attack"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in rows:
        done = _done(row, runs)
        start = [_cell(row.name), _seeds(row, runs)]
        paper = NONE if row.paper is None else _cell(row.paper)
        if not done:
            state = "failed" if _of(row, runs) else "not run yet"
            lines.append([*start, *[NONE] * (len(of_target) + len(names)), state, NONE, paper, NONE])
            continue
        of_attacks = [
            _rates(_shown(attack, left) for run in done for attack in run.attacks if attack.name == name)
            for name in names
        ]
        defended = [run.defence.robustness.pgd.rate for run in done if run.defence is not None]
        gaps = [run.amortization_gap for run in done if run.amortization_gap is not None]
        times = (_mean(done, lambda run: run.seconds.target_training), _mean(done, lambda run: run.seconds.attack))
        lines.append(
            [
                *start,
                _percent(_mean(done, lambda run: run.clean_accuracy.rate)),
                *([_rates(defended)] if black_box else []),
                *of_attacks,
                _rates(_shown(run, left) for run in done),
                ", ".join(map(_gap, gaps)) or NONE,
                paper,
                ", ".join(map(_duration, times)),
            ]
        )
    few = {attack.name: attack.images for run in runs if isinstance(run, DoneRun) for attack in run.attacks}
    fewer = [f"{name} on the first {few[name]:,}" for name in names if few[name] != images]
    legend = (
        f"{'Accuracy left by' if left else 'Success of'} each attack at the same epsilon, in per cent: AdvGAN's on all "
        f"test images, that of the others on the first {images:,}{' (' + ', '.join(fewer) + ')' if fewer else ''}; "
        "mean of the seeds, in brackets the smallest and the largest. "
    )
    if black_box:
        legend += (
            "Black box under PGD: the accuracy left to the black box by PGD-40 on its own gradient, along both losses, "
            "on the first 1,000 test images, at the epsilon of its training. "
        )
    for name in (name for name in names if name.endswith("margin")):
        legend += (
            f"{name}: PGD along the cross-entropy, then along the margin of logits where that failed. Gap: its "
            "success less AdvGAN's on the same images, in percentage points, with the 95 % interval of a paired "
            "difference, for each seed. "
        )
    legend += "Times are those of training, with validation: of the target and of the attack."
    parts = [f"## {section.title}", *([section.text.strip()] if section.text else []), legend]
    configurations = "\n".join(f"- {row.name}: `{shlex.join(row.options)}`" for row in rows)
    return [*parts, "\n".join(f"| {' | '.join(line)} |" for line in lines), *_failures(rows, runs), configurations]


def _shown(found: ComparedAttack | DoneRun, left: bool) -> float:
    """The accuracy that an attack leaves, or its success."""
    if left and found.accuracy_under_attack is not None:
        return found.accuracy_under_attack.rate
    return found.success.rate


def _rates(rates: Iterable[float]) -> str:
    """The mean of several seeds, and how far they are apart."""
    rates = list(rates)
    return _percent(sum(rates) / len(rates)) + _spread(rates) if rates else NONE


def _gap(gap: PairedDifference) -> str:
    return f"{100 * gap.difference:.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"


def _failures(rows: Sequence[TableRow], runs: Sequence[DoneRun | FailedRun]) -> list[str]:
    failed = [run for row in rows for run in _of(row, runs) if isinstance(run, FailedRun)]
    lines = [f"- Failed: {run.row}, seed {run.seed}: {_flat(run.problem)}" for run in failed]
    return ["\n".join(lines)] if lines else []


def _section(section: TableSection, runs: Sequence[DoneRun | FailedRun]) -> list[str]:
    if section.attack_images is not None:
        return _attack_section(section, runs)
    rows = section.rows
    black_box, paper = any(row.black_box for row in rows), any(row.paper is not None for row in rows)
    head = ["row", "configuration", "seeds", "clean accuracy", "success", "Wilson 95 %", "after 8 bits"]
    head += ["on the distilled network", "queries", "queries per image"] * black_box
    head += ["paper"] * paper + ["time"]
    lines = [head, ["---", "---", "---", *["---:"] * (len(head) - 3)]]
    lines += [_row(row, runs, black_box, paper) for row in rows]
    parts = [f"## {section.title}"]
    if section.text:
        parts.append(section.text.strip())
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += _failures(rows, runs)
    if section.picture is not None:
        parts.append(f"![{section.title}: success against queries for each attacked image]({section.picture})")
    return parts


def _row(row: TableRow, runs: Sequence[DoneRun | FailedRun], black_box: bool, paper: bool) -> list[str]:
    done = _done(row, runs)
    cells = [_cell(row.name), f"`{_cell(shlex.join(row.options))}`", _seeds(row, runs)]
    if done:
        interval = _pooled(done)
        cells += [
            _percent(_mean(done, lambda run: run.clean_accuracy.rate)),
            _percent(_mean(done, lambda run: run.success.rate)) + _spread([run.success.rate for run in done]),
            f"{_percent(interval.low)} to {_percent(interval.high)}",
            _percent(_mean(done, lambda run: run.success_8_bit.rate)),
        ]
    else:
        state = "failed" if _of(row, runs) else "not run yet"
        cells += [NONE, f"{state} (0 of {len(row.seeds)} seeds done)", NONE, NONE]
    if black_box:
        cells += _black_box_cells(done)
    if paper:
        cells.append(NONE if row.paper is None else _cell(row.paper))
    return [*cells, _duration(_mean(done, lambda run: run.seconds.attack)) if done else NONE]


def _black_box_cells(done: Sequence[DoneRun]) -> list[str]:
    distilled = [run.distilled.success.rate for run in done if run.distilled is not None]
    if not done or len(distilled) < len(done):
        return [NONE] * 3
    return [
        _percent(sum(distilled) / len(distilled)),
        f"{_mean(done, _queries):,.0f}",
        f"{_mean(done, _queries_per_image):,.3g}",
    ]


def _seeds(row: TableRow, runs: Sequence[DoneRun | FailedRun]) -> str:
    """The seeds behind the figures, and in words those that are missing."""
    state = {run.seed: run.state for run in _of(row, runs)}
    lists = {
        kind: ", ".join(str(seed) for seed in row.seeds if state.get(seed, "not run yet") == kind)
        for kind in ("done", "not run yet", "failed")
    }
    if lists["done"] and not lists["not run yet"] and not lists["failed"]:
        return lists["done"]
    missing = "; ".join(f"{kind}: {lists[kind]}" for kind in ("not run yet", "failed") if lists[kind])
    return f"{lists['done']} ({missing})" if lists["done"] else missing


def _of(row: TableRow, runs: Sequence[DoneRun | FailedRun]) -> list[DoneRun | FailedRun]:
    return [run for run in runs if run.row == row.name and run.seed in row.seeds]


def _done(row: TableRow, runs: Sequence[DoneRun | FailedRun]) -> list[DoneRun]:
    return [run for run in _of(row, runs) if isinstance(run, DoneRun)]


def _pooled(runs: Sequence[DoneRun]) -> Rate:
    """Success over the images of several runs taken together."""
    return Rate.of(sum(run.success.successes for run in runs), sum(run.success.n for run in runs))


def _mean(runs: Sequence[DoneRun], value: Callable[[DoneRun], float]) -> float:
    return sum(map(value, runs)) / len(runs)


def _queries(run: DoneRun) -> int:
    queries = run.queries or {}
    return sum(queries.get(purpose, 0) for purpose in TRAINING_QUERIES)


def _queries_per_image(run: DoneRun) -> float:
    return _queries(run) / run.clean_accuracy.n


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _spread(shares: Sequence[float]) -> str:
    return f" [{_percent(min(shares))}, {_percent(max(shares))}]" if len(shares) > 1 else ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Text that cannot end a cell; in a cell a backslash is needed in code too."""
    return _flat(text).replace("|", "\\|")


def _origin(command: str, done: Sequence[DoneRun]) -> list[str]:
    """What made the table, and whether all of it was made alike."""
    parts = ["## How it was made", f"    {command}"]
    if not done:
        return parts
    done = list({run.folder: run for run in done}.values())  # rows with equal settings share their runs
    commits = Counter(commit or "unknown" for run in done for commit in run.commits)
    environments = [environment for run in done for environment in run.environments]
    machines = Counter(f"{each['device']}, {each['cores']} cores" for each in environments)
    versions = Counter(
        ", ".join(f"{name} {each[key]}" for name, key in _VERSIONS if key in each) for each in environments
    )
    lines = []
    for what, counts in (("commit", commits), ("machine", machines), ("versions", versions)):
        if len(counts) == 1:
            lines.append(f"- {what}: {next(iter(counts))}")
        else:
            several = what if what.endswith("s") else f"{what}s"
            listed = "; ".join(f"{each} ({count} runs)" for each, count in counts.items())
            lines.append(f"- **different {several}**: {listed}")
    return [
        *parts,
        "\n".join(lines),
        "Each run on its own is made by `python -m advgan.train` with its configuration above and `--set seed=N`.",
    ]


_VERSIONS = (
    ("Python", "python"),
    ("TensorFlow", "tensorflow"),
    ("Keras", "keras"),
    ("NumPy", "numpy"),
    ("TensorFlow Addons", "tensorflow_addons"),
    ("advgan", "advgan"),
)
