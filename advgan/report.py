"""What a run tells its user, as lines of text."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from advgan.config import Config, dump_config
from advgan.networks.description import NetworkDescription, describe
from advgan.plan import Plan


def threat_model(config: Config) -> str:
    """The attacker's goal, knowledge and limits, in words."""
    return (
        f"{config.attack.objective}, semi-white-box: the target's gradients are used in training, afterwards "
        f"the generator attacks alone; L_inf, epsilon = {config.attack.epsilon:.4g}, pixels in [0, 1]"
    )


def dry_run(plan: Plan) -> list[str]:
    """The resolved configuration, every layer of the networks, and the steps of the run."""
    lines = ["# Resolved configuration", dump_config(plan.config)]
    for network in plan.networks:
        lines += [*layer_table(describe(network)), ""]
    epochs = plan.config.training.epochs
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
        f"validation, {len(dataset.test):,} test images of {height}x{width}x{channels}",
        f"Threat model   {threat_model(config)}",
        f"Generator      {plan.networks.generator.count_params():,} parameters: {', '.join(names)}",
        f"Discriminator  {plan.networks.discriminator.count_params():,} parameters: "
        f"{', '.join(f'C{filters}' for filters in config.discriminator.widths)}",
        f"Target         {plan.networks.target.count_params():,} parameters: {config.target.architecture}",
    ]


def results(summary: dict[str, Any], run_directory: Path) -> list[str]:
    """The table at the end of a run, and where the pictures are."""
    test, seconds = summary["test"], summary["seconds"]

    def row(name: str, value: str) -> str:
        return f"  {name:<42}{value}"

    def rate(name: str) -> str:
        value = test[name]
        return f"{value['rate']:>8.2%}   [{value['low']:.2%}, {value['high']:.2%}]   n = {value['n']:,}"

    times = f"{seconds['target_training']:>8.0f} s, {seconds['generator_training']:.0f} s"
    return [
        "",
        f"On the test images, best generator (epoch {summary['best_epoch']}), Wilson 95 % intervals:",
        row("attack success rate", rate("success")),
        row("  after rounding to 8 bits", rate("success_8_bit")),
        row("clean accuracy of the target", rate("clean_accuracy")),
        row("accuracy under attack", rate("accuracy_under_attack")),
        row("largest change of a pixel (L_inf)", f"{test['largest_linf']:>10.6f}"),
        row("mean L2 of the perturbation", f"{test['mean_l2']:>10.2f}"),
        row("training: target, generator", times),
        "",
        f"Pictures: {run_directory / 'result.png'}, {run_directory / 'curves.png'}",
        f"Figures:  {run_directory / 'summary.json'}",
    ]


def what_next(config: Config, run_directory: Path) -> str:
    """One command that goes on from here."""
    if config.data.dataset == "mnist" and config.attack.goal == "untargeted":
        return "python -m advgan.train --config mnist_targeted.yaml   (make every digit a 3)"
    file = shlex.quote(str(run_directory / "config.yaml"))
    smaller = f"{config.attack.epsilon * 2 / 3:.2g}"
    return f"python -m advgan.train --config {file} --set attack.epsilon={smaller}   (a smaller perturbation)"
