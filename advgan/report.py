"""What a run tells its user, as lines of text."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from advgan.config import Config, dump_config
from advgan.plan import Plan


def threat_model(config: Config) -> str:
    """The attacker's goal, knowledge and limits, in words."""
    return (
        f"{config.attack.objective}, semi-white-box: the target's gradients are used in training, afterwards "
        f"the generator attacks alone; L_inf, epsilon = {config.attack.epsilon:.4g}, pixels in [0, 1]"
    )


def layers(plan: Plan) -> list[str]:
    """The resolved configuration, every layer with its output shape and parameters, and the steps of the run."""
    lines = ["# Resolved configuration", dump_config(plan.config)]
    networks = (("Generator", plan.generator), ("Discriminator", plan.discriminator), ("Target", plan.target))
    for title, network in networks:
        lines.append(f"# {title}: {network.count_params():,} parameters")
        for layer in network.layers:
            shape = "x".join(str(size) for size in tuple(layer.output.shape)[1:])
            lines.append(f"  {layer.name:<24}{type(layer).__name__:<22}{shape:>12}{layer.count_params():>12,}")
        lines.append("")
    epochs = plan.config.training.epochs
    lines.append(f"# Steps: {epochs} epochs x {plan.steps // epochs} = {plan.steps}, then the test images")
    return lines


def introduction(plan: Plan, run_directory: Path) -> list[str]:
    """Where, on what, with which data, threat model and networks."""
    config, dataset, environment = plan.config, plan.dataset, plan.environment
    height, width, channels = dataset.image_shape
    widths, blocks = config.generator.widths, config.generator.residual_blocks
    names = [f"c3s1-{widths[0]}", *(f"d{filters}" for filters in widths[1:])]
    names += [f"r{widths[-1]} x{blocks}"] if blocks else []
    names += [*(f"u{filters}" for filters in reversed(widths[:-1])), f"c3s1-{channels}"]
    exact = "bit-identical repeats" if environment["deterministic"] else "not bit-identical"
    addons = f" with Addons {environment['tensorflow_addons']}" if "tensorflow_addons" in environment else ""
    return [
        f"Run            {run_directory}",
        f"Device         {environment['device']}, {environment['cores']} cores, "
        f"TensorFlow {environment['tensorflow']}{addons}, {exact}",
        f"Data           {config.data.dataset}: {len(dataset.training):,} training, {len(dataset.validation):,} "
        f"validation, {len(dataset.test):,} test images of {height}x{width}x{channels}",
        f"Threat model   {threat_model(config)}",
        f"Generator      {plan.generator.count_params():,} parameters: {', '.join(names)}",
        f"Discriminator  {plan.discriminator.count_params():,} parameters: "
        f"{', '.join(f'C{filters}' for filters in config.discriminator.widths)}",
        f"Target         {plan.target.count_params():,} parameters: {config.target.architecture}",
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
