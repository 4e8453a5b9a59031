"""What a run tells its user, as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advgan.classifiers.checks import WARN, Finding
from advgan.command_line import command_for
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.data.datasets import images_in_common
from advgan.experiments.plan import Plan
from advgan.networks.description import NetworkDescription, describe
from advgan.reports.comparison import goal_in_short, target_in_short
from advgan.training.query_plan import query_plan


def threat_model(config: Config, other_target: bool = False) -> str:
    """The attacker's goal, knowledge and limits, in words.

    Args:
        config: of the run.
        other_target: whether the classifier under attack is another than the run's own.
    """
    knowledge = "semi-white-box: the target's gradients are used in training, afterwards the generator attacks alone"
    if config.black_box is not None:
        kind = "static" if config.distillation.rounds == 1 else "dynamic"
        budget = "any number of"
        if config.oracle.query_budget is not None:
            budget = f"{config.oracle.query_budget:,}"
        knowledge = (
            f"black-box: only the classifier's answers are used ({config.oracle.answers}, to {budget} queries), to "
            f"distil a {config.distilled_architecture} ({kind}), which the generator is trained against; afterwards it "
            "attacks alone"
        )
    if other_target:
        knowledge = "transfer: the generator was trained against another classifier and attacks this one alone"
    return f"{config.attack.objective}, {knowledge}; L_inf, epsilon = {config.attack.epsilon:.4g}, pixels in [0, 1]"


def dry_run(plan: Plan) -> list[str]:
    """The resolved configuration, every layer of the networks, and the steps of the run."""
    lines = ["# Resolved configuration", dump_config(plan.config)]
    known = plan.networks.of_known_layers(plan.config)
    for network in known.values():
        lines += [*layer_table(describe(network)), ""]
    if "target" not in known:
        lines += [f"# target: {target_named(plan.networks.target, plan.config)}", ""]
    lines += [f"# Data: {plan.dataset.classes_in_words}", *warning_lines(plan.findings)]
    if plan.config.black_box is not None:
        lines.append(f"# Queries: {_queries_planned(plan)}")
    epochs = plan.config.generator_epochs
    lines.append(f"# Steps: {epochs} epochs x {plan.steps // epochs} = {plan.steps}, then the test images")
    return lines


def layer_table(network: NetworkDescription) -> list[str]:
    """A network's layers, one per line, for one image, and their totals."""
    rows = [
        (
            layer.name,
            layer.kind,
            _times(layer.kernel),
            _times(layer.stride),
            " ".join(f"{pixels:+d}" if pixels else "0" for pixels in layer.padding) if layer.padding else "",
            _times(layer.output_shape),
            f"{layer.trained_parameters:,}" + (f" + {layer.kept_parameters:,}" if layer.kept_parameters else ""),
            f"{layer.operations:,}",
            f"{layer.activation_bytes:,}",
        )
        for layer in network.layers
    ]
    head = ("layer", "kind", "kernel", "stride", "pad t b l r", "output", "parameters", "operations", "bytes")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            f"{cell:<{width}}" if column < 2 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  " + "  ".join(cells).rstrip()

    kept = f" and {network.kept_parameters:,} kept (moving statistics)" if network.kept_parameters else ""
    return [
        f"# {network.name}: {_times(network.input_shape)} in, {_times(network.layers[-1].output_shape)} out; "
        f"{network.trained_parameters:,} parameters trained{kept}; {network.operations:,} operations and "
        f"{network.activation_bytes:,} bytes of activations for one image",
        line(head),
        *map(line, rows),
    ]


def _times(sizes: tuple[int, ...] | None) -> str:
    return "x".join(map(str, sizes)) if sizes else ""


def introduction(plan: Plan, run_directory: Path) -> list[str]:
    """Where, on what, with which data, threat model and networks."""
    config, dataset, environment = plan.config, plan.dataset, plan.environment
    height, width, channels = dataset.image_shape
    widths, blocks = config.generator.widths, config.generator.residual_blocks
    stride_1 = f"c{config.generator.kernel}s1"
    names = [f"{stride_1}-{widths[0]}", *(f"d{filters}" for filters in widths[1:])]
    names += [f"r{widths[-1]} x{blocks}"] if blocks else []
    names += [*(f"u{filters}" for filters in reversed(widths[:-1])), f"{stride_1}-{channels}"]
    exact = "bit-identical repeats" if environment["deterministic"] else "not bit-identical"
    addons = f" with Addons {environment['tensorflow_addons']}" if "tensorflow_addons" in environment else ""
    return [
        f"Run            {run_directory}",
        f"Device         {environment['device']}, {environment['cores']} cores, "
        f"TensorFlow {environment['tensorflow']}{addons}, {exact}",
        f"Data           {config.data.dataset}: {len(dataset.training):,} training, {len(dataset.validation):,} "
        f"validation, {len(dataset.test):,} test images of {height}x{width}x{channels}, "
        f"{dataset.classes_in_words}",
        f"Threat model   {threat_model(config)}",
        f"Generator      {plan.networks.generator.count_params():,} parameters: {', '.join(names)}",
        f"Discriminator  {plan.networks.discriminator.count_params():,} parameters: "
        f"{', '.join(f'C{filters}' for filters in config.discriminator.widths)}",
        f"Target         {target_named(plan.networks.target, config)}",
        *_black_box_lines(plan),
    ]


def warnings(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding that warns, for the log."""
    return [f"{found.guard}: {found.reason}. {found.remedy}".rstrip() for found in findings if found.status == WARN]


def warning_lines(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding that warns, for the end of a table."""
    return [f"Warning: {line}" for line in warnings(findings)]


def _black_box_lines(plan: Plan) -> list[str]:
    config = plan.config
    if config.black_box is None:
        return []
    owner, attacker = plan.owner.training, plan.dataset.training
    shared = images_in_common(attacker, [owner])
    return [
        f"Distilled      {plan.networks.distilled.count_params():,} parameters: {config.distilled_architecture}, "
        f"{config.distillation.rounds} {'round' if config.distillation.rounds == 1 else 'rounds'}",
        f"Data apart     {len(owner):,} training images of the black box, {len(attacker):,} of the attacker, "
        f"{shared} in both",
        f"Queries        {_queries_planned(plan)}",
    ]


def _queries_planned(plan: Plan) -> str:
    """What the black box will be asked about, and when."""
    planned = query_plan(plan.config, len(plan.dataset.training), len(plan.dataset.validation))
    later = " + ".join(f"{count:,}" for count in planned.adversarial) or "no"
    validation = f"{planned.validation * (1 + planned.validations):,} for validation"
    budget = plan.config.oracle.query_budget
    limit = "no budget" if budget is None else f"of a budget of {budget:,}"
    return f"{planned.total:,} at most, {limit}: {planned.clean:,} clean, {later} adversarial images, {validation}"


def epoch_line(values: dict[str, float], epoch: int, improved: bool, config: Config) -> str:
    """What an epoch came to, in one line."""
    best = " (best so far)" if improved else ""
    where = ""
    if config.black_box is not None and config.oracle.validation_allowance == 0:
        where, best = " on the distilled network", ""
    elif "validation_success_distilled" in values:
        where = f" on the black box ({values['validation_success_distilled']:.2%} on the distilled network)"
    return (
        f"epoch {epoch}/{config.generator_epochs}: validation success {values['validation_success']:.2%}{where}{best}, "
        f"{values['seconds']:.0f} s of training"
    )


def target_named(target: Any, config: Config) -> str:
    """How large the target is, and what it is."""
    if target is None:
        return f"a black box: {config.black_box}"
    return f"{target.count_params():,} parameters: {config.target.file or config.target.architecture}"


def results(summary: dict[str, Any], run_directory: Path) -> list[str]:
    """The table at the end of a run, and where the pictures are."""
    test, seconds = summary["test"], summary["seconds"]

    def row(name: str, value: str) -> str:
        return f"  {name:<42}{value}"

    def rate(name: str) -> str:
        value = test[name]
        return f"{value['rate']:>8.2%}   [{value['low']:.2%}, {value['high']:.2%}]   n = {value['n']:,}"

    validated = "black_box" not in summary or summary["black_box"]["queries"]["validation"] > 0
    generator = f"best generator (epoch {summary['best_epoch']})" if validated else "last generator"
    times = f"{seconds['target_training']:>8.0f} s, {seconds['generator_training']:.0f} s"
    if "distillation" in seconds:
        times += f", {seconds['distillation']:.0f} s"
    return [
        "",
        f"On the test images, {generator}, Wilson 95 % intervals:",
        row("attack success rate", rate("success")),
        row("  after rounding to 8 bits", rate("success_8_bit")),
        row("clean accuracy of the target", rate("clean_accuracy")),
        row("accuracy under attack", rate("accuracy_under_attack")),
        row("largest change of a pixel (L_inf)", f"{test['largest_linf']:>10.6f}"),
        row("mean L2 of the perturbation", f"{test['mean_l2']:>10.2f}"),
        row("training: target, generator" + (", distillation" if "distillation" in seconds else ""), times),
        *(row(*line) for line in _black_box_results(summary)),
        "",
        *warning_lines(Finding(**found) for found in summary.get("checks", [])),
        f"Pictures: {run_directory / 'result.png'}, {run_directory / 'curves.png'}",
        f"Figures:  {run_directory / 'summary.json'}",
        own_pictures(run_directory),
        f"Next: {command_for('evaluate', '--run', run_directory)}   # other attacks, a report",
    ]


def _black_box_results(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the black box was asked, and the gap between it and the distilled network."""
    if "black_box" not in summary:
        return []
    found, images = summary["black_box"], summary["test"]["accuracy_under_attack"]["n"]
    queries, success = found["queries"], found["distilled"]["success"]
    spent = sum(count for purpose, count in queries.items() if purpose != "scoring")
    parts = ", ".join(f"{queries[purpose]:,} {purpose}" for purpose in ("clean", "adversarial", "validation"))
    clean, adversarial = (found["distilled"][f"agreement_{kind}"] for kind in ("clean", "adversarial"))
    return [
        (
            "success on the distilled network",
            f"{success['rate']:>8.2%}   [{success['low']:.2%}, {success['high']:.2%}]",
        ),
        ("agreement with it: clean, adversarial", f"{clean:>8.2%}, {adversarial:.2%}"),
        ("queries for the attack", f"{spent:>8,}   {parts}"),
        ("  for each test image", f"{spent / images:>10.2f}   ({queries['scoring']:,} more to score it)"),
    ]


def evaluation_introduction(model: str, run_directory: Path, target: str, images: int) -> str:
    """Which run, which target, which threat model, how many images."""
    return (
        f"Run            {run_directory}\nTarget         {target}\nThreat model   {model}\n"
        f"Images         {images:,} test images"
    )


def queries_ahead(most: int, asked: int) -> str:
    """How many images an evaluation will ask a black box about, and how many it has already."""
    return f"Queries        {most:,} at most to evaluate, {asked:,} of them asked already; no part of the attack's"


def evaluation_results(record: dict[str, Any], folder: Path) -> list[str]:
    """The table at the end of an evaluation, and where its files are."""
    data, distortion = record["data"], record["distortion"]

    def row(name: str, value: str) -> str:
        return f"  {name:<42}{value}"

    def rate(value: dict[str, Any] | None) -> str:
        if value is None:
            return "       not measured"
        return f"{value['rate']:>8.2%}   [{value['low']:.2%}, {value['high']:.2%}]   n = {value['n']:,}"

    def number(value: float | None, digits: int) -> str:
        return f"{'none':>10}" if value is None else f"{value:>10.{digits}f}"

    whole = f"all {data['images']:,}" if data["all_test_images"] else f"the first {data['images']:,} of {data['of']:,}"
    return [
        "",
        f"On {whole} test images, Wilson 95 % intervals:",
        row("attack success rate", rate(record["success"])),
        row("  after rounding to 8 bits", rate(record["success_8_bit"])),
        row("  saved as floats and read back", rate(record["success_read_back"]["adversarial.npz"])),
        row("  saved as PNG and read back", rate(record["success_read_back"]["png"])),
        row("clean accuracy of the target", rate(record["clean_accuracy"])),
        row("accuracy under attack", rate(record["accuracy_under_attack"])),
        row("largest change of a pixel (L_inf)", number(distortion["largest_linf"], 6)),
        row("mean L2", number(distortion["mean_l2"], 2)),
        row("mean L0 (pixel values that differ)", number(distortion["mean_l0"], 1)),
        row("mean SSIM", number(distortion["mean_ssim"], 4)),
        row("mean PSNR, dB", number(distortion["mean_psnr"], 2)),
        *(row(*line) for line in _queries_and_gap(record)),
        "",
        "Beside other attacks, same images and epsilon (seconds for 1,000 images on the right):",
        row("advgan", f"{rate(record['success']):<46}{record['seconds_per_1000_images']:>10.3f} s"),
        *(
            row(
                attack["name"] + ("" if attack["images"] == data["images"] else f", first {attack['images']:,} images"),
                f"{rate(attack['success']):<46}{attack['seconds_per_1000_images']:>10.3f} s",
            )
            for attack in record["attacks"]
        ),
        *(row(missing["name"], f"       {missing['reason']}") for missing in record.get("attacks_left_out", [])),
        row("all together, image by image", rate(record["worst_case"])),
        *(
            row(f"transfer to {other['name']}", f"{rate(other['success']):<46}{_clean(other)}")
            for other in record["transfer"]
        ),
        *(row(f"retrained at epsilon {point['epsilon']:.4g}", rate(point["success"])) for point in record["retrained"]),
        "",
        *warning_lines(Finding(**found) for found in record["guards"]),
        f"Report:   {folder / 'report.html'}",
        f"Figures:  {folder / 'evaluation.json'}",
    ]


def _clean(other: dict[str, Any]) -> str:
    """The clean accuracy that a transfer's success is relative to."""
    return f"of a clean accuracy of {other['clean_accuracy']['rate']:.2%}"


def _queries_and_gap(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What a black box was asked, and how the distilled network answers in its place; nothing for another target."""
    if "queries" not in record:
        return []
    queries, distilled = record["queries"], record["distilled"]
    success = distilled["success"]
    parts = ", ".join(f"{count:,} {purpose}" for purpose, count in queries["attack"].items())
    clean, adversarial = (distilled[f"agreement_{kind}"]["rate"] for kind in ("clean", "adversarial"))
    interval = f"[{success['low']:.2%}, {success['high']:.2%}]"
    return [
        ("success on the distilled network", f"{success['rate']:>8.2%}   {interval}   n = {success['n']:,}"),
        ("agreement with it: clean, adversarial", f"{clean:>8.2%}, {adversarial:.2%}"),
        ("queries for the attack", f"{queries['attack_total']:>8,}   {parts}"),
        ("  for each image scored", f"{queries['per_image']:>11.2f}"),
        ("queries of the evaluation", f"{queries['evaluation']:>8,}   no part of the attack's"),
    ]


def comparison_results(comparison: dict[str, Any], folder: Path) -> list[str]:
    """The table of several runs, what keeps them from being compared, and where the files are."""
    head = ("run", "goal", "epsilon", "target", "clean", "n", "success", "Wilson 95 %", "8 bits", "L2", "SSIM")
    rows = [(*head, "strongest other", "s/1,000")]
    for run in comparison["runs"]:
        success, strongest = run["success"], run["strongest_other"]
        rows.append(
            (
                run["run"],
                goal_in_short(run),
                f"{run['epsilon']:.4g}",
                target_in_short(run),
                f"{run['clean_accuracy']['rate']:.2%}",
                f"{success['n']:,}",
                f"{success['rate']:.2%}",
                f"[{success['low']:.2%}, {success['high']:.2%}]",
                f"{run['success_8_bit']['rate']:.2%}",
                "none" if run["mean_l2"] is None else f"{run['mean_l2']:.2f}",
                "none" if run["mean_ssim"] is None else f"{run['mean_ssim']:.3f}",
                f"{strongest['name']} {strongest['success']['rate']:.2%}",
                f"{run['seconds_per_1000_images']:.3f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), ""]
    for run in comparison["runs"]:
        if run["differences"]:
            lines.append(f"Not a fair comparison: {run['run']} has {'; '.join(run['differences'])}")
        if run["marked"]:
            lines.append(f"Warning: {run['run']} is marked by: {', '.join(run['marked'])}")
    return [*lines, f"Report:   {folder / 'comparison.html'}", f"Figures:  {folder / 'comparison.json'}"]


def own_pictures(run: Path) -> str:
    """The command that attacks the user's own pictures; FOLDER stands for theirs."""
    return f"Your own pictures: {command_for('attack', 'FOLDER', '--run', run, '--output', 'adversarial/')}"
