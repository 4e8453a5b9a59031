"""What a run is about to do and how it goes, as lines of text; what it came to is in ``reports/terminal.py``."""

from __future__ import annotations

from pathlib import Path

from advgan.classifiers.classifier import Classifier
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.experiments.plan import Plan, UntrainedNetworks
from advgan.experiments.threat_models import threat_model_of
from advgan.networks.description import NetworkDescription, describe
from advgan.reports.terminal import columns, pixel_lines, warning_lines


def dry_run(plan: Plan) -> list[str]:
    """The resolved configuration, every layer of the networks, and the steps of the run."""
    lines = ["# Resolved configuration", dump_config(plan.config)]
    known = plan.networks.of_known_layers(plan.config)
    for network in known.values():
        lines += [*layer_table(describe(network)), ""]
    for line in not_shown(plan.networks, plan.config):
        lines += [line, ""]
    lines += [f"# Data: {plan.dataset.classes_in_words}", *warning_lines(plan.findings)]
    if queries := plan.threat_model.queries_planned(plan.dataset):
        lines.append(f"# Queries: {queries}")
    epochs = plan.config.generator_epochs
    lines += [f"# {line}" for line in _about_own_classifier(plan)]
    lines.append(f"# Steps: {epochs} epochs x {plan.steps // epochs} = {plan.steps}, then the test images")
    return lines


def _about_own_classifier(plan: Plan) -> list[str]:
    """How a classifier of the user's own is used, and how that was found."""
    target, config = plan.networks.target, plan.config
    if not isinstance(target, Classifier):
        return []
    found = [] if plan.pixels is None else pixel_lines(plan.pixels)
    remarks = [f"               {remark}" for remark in target.remarks]
    return [*remarks, *found, f"Scale          {config.loss.divisor:g}: the loss divides the logits by it"]


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


def not_shown(networks: UntrainedNetworks, config: Config) -> list[str]:
    """A line about the target, and one about the distilled network, if their layers are not described."""
    known, lines = networks.of_known_layers(config), []
    if "target" not in known:
        lines.append(f"# target: {threat_model_of(config).target_named(networks.target)}; its layers are not shown")
    if networks.distilled is not None and "distilled" not in known:
        parameters = f"{networks.distilled.count_params():,} parameters"
        lines.append(f"# distilled: {parameters}: {config.distilled_architecture}; its layers are not shown")
    return lines


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
        f"               {dataset.card.split}" + (f"; resized {resized}" if (resized := dataset.card.resized) else ""),
        f"Threat model   {plan.threat_model.describe()}",
        f"Generator      {plan.networks.generator.count_params():,} parameters: {', '.join(names)}",
        f"Discriminator  {plan.networks.discriminator.count_params():,} parameters: "
        f"{', '.join(f'C{filters}' for filters in config.discriminator.widths)}",
        f"Target         {plan.threat_model.target_named(plan.networks.target)}",
        *_about_own_classifier(plan),
        *plan.threat_model.introduction(plan.owner, dataset, plan.networks.distilled),
    ]


def epoch_line(values: dict[str, float], epoch: int, improved: bool, epochs: int) -> str:
    """What an epoch of so many came to, in one line."""
    best = " (best so far)" if improved else ""
    where = ""
    if "agreement_clean" in values:
        where = f" on the black box ({values['validation_success_distilled']:.2%} on the distilled network)"
    elif "validation_success_distilled" in values:  # where every later generator counts as better
        where, best = " on the distilled network", ""
    return (
        f"epoch {epoch}/{epochs}: validation success {values['validation_success']:.2%}{where}{best}, "
        f"{values['seconds']:.0f} s of training"
    )


def evaluation_introduction(model: str, run_directory: Path, target: str, images: int) -> str:
    """Which run, which target, which threat model, how many images."""
    return (
        f"Run            {run_directory}\nTarget         {target}\nThreat model   {model}\n"
        f"Images         {images:,} test images"
    )
