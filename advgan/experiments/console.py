"""What a run is about to do and how it goes, as lines of text; what it came to is in ``reports/terminal.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.data.datasets import images_in_common
from advgan.experiments.plan import Plan
from advgan.networks.description import NetworkDescription, describe
from advgan.reports.terminal import columns, warning_lines
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
    kept = f" and {network.kept_parameters:,} kept (moving statistics)" if network.kept_parameters else ""
    return [
        f"# {network.name}: {_times(network.input_shape)} in, {_times(network.layers[-1].output_shape)} out; "
        f"{network.trained_parameters:,} parameters trained{kept}; {network.operations:,} operations and "
        f"{network.activation_bytes:,} bytes of activations for one image",
        *(f"  {line}" for line in columns([head, *rows], left=2)),
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


def evaluation_introduction(model: str, run_directory: Path, target: str, images: int) -> str:
    """Which run, which target, which threat model, how many images."""
    return (
        f"Run            {run_directory}\nTarget         {target}\nThreat model   {model}\n"
        f"Images         {images:,} test images"
    )
