"""The report card: the checklist of Carlini et al. 2019, *On Evaluating Adversarial Robustness*, line by line.

The checklist was written for those who propose a defence; here it is asked of the evaluation of an attack on a
classifier. Each line says pass, warn or not checked, and why. No line is passed that this program did not look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advgan.classifiers.checks import NOT_CHECKED, PASS, WARN

SEVERE, PITFALLS, SPECIAL = "Severe flaws", "Pitfalls", "Special cases"


@dataclass(frozen=True)
class Line:
    """One line of the card."""

    section: str
    item: str
    status: str
    """``pass``, ``warn`` or ``not checked``."""
    reason: str


def report_card(record: Mapping[str, Any]) -> list[Line]:
    """Fill in the card from the content of ``evaluation.json``."""
    guards = {found["guard"]: found for found in record["guards"]}
    attacks = {attack["name"]: attack for attack in record["attacks"]}
    pgd = next((attack for attack in record["attacks"] if attack["kind"] == "iterative"), None)
    transfer = [other for other in record["transfer"] if other["sha256"] != record["target"]["sha256"]]
    square = attacks.get("square")
    black_box = "queries" in record
    lines: list[Line] = []

    def add(section: str, item: str, status: str, reason: str) -> None:
        lines.append(Line(section, item, status, reason))

    def of_guard(section: str, item: str, guard: str) -> None:
        found = guards[guard]
        add(section, item, found["status"], found["reason"])

    add(SEVERE, "The list was not followed mindlessly", NOT_CHECKED, "a program filled it in; a reader has to think")
    add(
        SEVERE, "Threat model: the attacker's goal, knowledge and capabilities are stated", PASS, record["threat_model"]
    )
    knows = "Threat model: the attacker knows how the classifier works"
    if black_box:
        add(SEVERE, knows, NOT_CHECKED, "a black box: nothing of it is used but its answers")
    else:
        add(
            SEVERE,
            knows,
            PASS if pgd else WARN,
            "FGSM, PGD and FMN follow the gradient of the whole classifier"
            if pgd
            else "no attack could follow the gradient of the classifier",
        )
    add(SEVERE, "Threat model: it models a real adversary", NOT_CHECKED, "depends on where the classifier is used")
    add(
        SEVERE,
        "Threat model: the bound on the perturbation is justified",
        NOT_CHECKED,
        f"L_inf with epsilon {record['epsilon']:.4g} is the configuration's; why it fits is for its author to say",
    )
    of_guard(SEVERE, "Adaptive attacks: they see the whole classifier, end to end", "gradients")
    loss = "margin of logits for AdvGAN and FMN, cross-entropy for FGSM and PGD"
    strongest = "Adaptive attacks: the strongest ones were used"
    if black_box:
        loss = "margin of the distilled network's logits for AdvGAN, of the black box's answers for Square"
        add(SEVERE, "Adaptive attacks: the loss fits the goal", PASS, loss)
        asked = f"Square, {square['settings']['queries_per_image']:,} queries an image" if square else "none"
        add(SEVERE, strongest, WARN, f"of those that ask: {asked}; --square-queries 10000 is stronger")
    else:
        add(SEVERE, "Adaptive attacks: the loss fits the goal", guards["logits"]["status"], loss)
        restarts = pgd["settings"]["restarts"] if pgd else 0
        add(
            SEVERE,
            strongest,
            PASS if restarts > 1 else WARN,
            f"starts of PGD: {restarts}" + ("" if restarts > 1 else "; --restarts 10 is stronger"),
        )
    commit = record["commit"] or "unknown"
    released = commit != "unknown" and not commit.endswith("-dirty")
    add(
        SEVERE,
        "Code and networks can be had",
        PASS if released else WARN,
        f"commit {commit}" + (", networks with their SHA-256" if released else ": not the code that ran"),
    )
    add(SEVERE, "One command repeats it", PASS if record["command"] else WARN, record["command"] or "unknown")
    add(SEVERE, "Clean accuracy is reported", PASS, _rate(record["clean_accuracy"]))
    add(
        SEVERE,
        "A ROC curve where inputs are rejected",
        NOT_CHECKED,
        "does not apply: the classifier answers every image",
    )
    of_guard(SEVERE, "Sanity: many steps do better than one", "iterative beats single step")
    of_guard(SEVERE, "Sanity: success rises with epsilon", "success rises with epsilon")
    of_guard(SEVERE, "Sanity: at the full range accuracy falls to chance", "full range reaches chance")
    highest = max(point["success"]["rate"] for point in record["curve"])
    add(SEVERE, "Success against epsilon is drawn", PASS, f"{len(record['curve'])} values of epsilon from 0 to 1")
    add(
        SEVERE,
        "The curve extends until an attack always succeeds",
        PASS if highest == 1 or _none_left(record["full_range"]) else WARN,
        f"the scaled perturbation reaches {highest:.2%}; PGD at epsilon 1 leaves an accuracy of "
        + (f"{record['full_range']['rate']:.1%}" if record["full_range"] else "(did not run)"),
    )
    add(
        SEVERE, "Unbounded attacks report distortion", NOT_CHECKED, "does not apply: all attacks are bounded by epsilon"
    )
    of_guard(SEVERE, "White-box attacks do better than others", "white-box beats black-box")
    add(SEVERE, "Attacks are compared image by image", PASS, f"all together fool {_rate(record['worst_case'])}")
    add(
        SEVERE,
        "Black-box, transfer and noise attacks were tried",
        PASS if transfer or square else WARN,
        _gradient_free(black_box, square, len(transfer)),
    )
    add(
        SEVERE,
        "Attacks are described with all settings",
        PASS,
        "evaluation.json, attacks[].settings, and the run's config",
    )
    add(
        SEVERE,
        "All test images were used",
        PASS if record["data"]["all_test_images"] else WARN,
        f"{record['data']['images']:,} of {record['data']['of']:,}",
    )
    of_guard(SEVERE, "No scored image was trained on", "held-out images")

    add(
        PITFALLS,
        "The attacks are diverse",
        PASS if len({attack["kind"] for attack in attacks.values()}) > 2 else WARN,
        "a generator, " + ", ".join(attacks),
    )
    add(PITFALLS, "A gradient-free and a hard-label attack", *_hard_label(record, square))
    add(
        PITFALLS,
        "Transfer: success on other classifiers is below that of white-box attacks",
        _transfer_status(record, transfer),
        "; ".join(f"{other['name']}: {_rate(other['success'])}" for other in transfer)
        or "no other classifier was given",
    )
    of_guard(PITFALLS, "Randomness is averaged over, or there is none", "repeats")
    of_guard(PITFALLS, "Parts without a gradient are replaced, or there are none", "gradients")
    add(PITFALLS, "The attacks have converged", NOT_CHECKED, "PGD was not run with twice the steps")
    add(
        PITFALLS,
        "The search starts at a random offset",
        PASS if pgd or square else NOT_CHECKED,
        "PGD starts at a random point within epsilon"
        if pgd
        else "Square starts at random stripes of epsilon"
        if square
        else "PGD did not run",
    )
    add(PITFALLS, "Sensitivity to the attacks' settings", NOT_CHECKED, "one setting of each was run")
    add(PITFALLS, "Comparison with prior work", NOT_CHECKED, "the README states the paper's figures")
    add(PITFALLS, "Broader threat models (rotation, corruption, Gaussian noise)", NOT_CHECKED, "L_inf only")

    add(SPECIAL, "Provable bounds", NOT_CHECKED, "none was computed")
    noise = [_rate(attack["success"]) for attack in attacks.values() if attack["kind"] == "noise"]
    add(
        SPECIAL,
        "Random noise of the right norm, 10,000 draws per image",
        WARN,
        f"two kinds, one draw each: {'; '.join(noise)}",
    )
    goal = record["goal"]
    other = "untargeted" if goal == "targeted" else "targeted"
    add(SPECIAL, "It is stated whether attacks are targeted", PASS, goal)
    add(SPECIAL, "Targeted and untargeted attacks were used", WARN, f"{goal} only; evaluate a run that is {other} too")
    add(SPECIAL, "Ablations", NOT_CHECKED, "the classifier has no defence that this program knows of")
    add(
        SPECIAL,
        "The new attack was tried on other classifiers",
        PASS if transfer else NOT_CHECKED,
        f"{len(transfer)} by transfer" if transfer else "no other classifier was given",
    )
    add(SPECIAL, "Domains other than images", PASS, "stated: images only")
    add(SPECIAL, "Success is per image: the mean over images of the best attack", PASS, _rate(record["worst_case"]))
    return lines


def _gradient_free(black_box: bool, square: Mapping[str, Any] | None, transfer: int) -> str:
    if black_box:
        tried = "noise, and FGSM and PGD by transfer from the distilled network"
        tried += ", and Square" if square else "; Square was not measured"
        return tried + (f", and transfer to {transfer} other classifier(s)" if transfer else "")
    if transfer:
        return f"noise, and transfer to {transfer} other classifier(s)"
    return "noise only; --transfer adds classifiers"


def _hard_label(record: Mapping[str, Any], square: Mapping[str, Any] | None) -> tuple[str, str]:
    if square is None:
        return WARN, "noise asks for neither, but it does not search"
    if record["queries"]["answers"] == "labels":
        return PASS, "Square, which was told the class alone, as AdvGAN was: without a score it tries squares blindly"
    return WARN, "Square follows no gradient, but it was told probabilities; no attack was told the class alone"


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['rate']:.2%} [{rate['low']:.2%}, {rate['high']:.2%}] of {rate['n']:,}"


def _none_left(left: Mapping[str, Any] | None) -> bool:
    return left is not None and left["successes"] == 0


def _transfer_status(record: Mapping[str, Any], transfer: Sequence[Mapping[str, Any]]) -> str:
    white_box = [a["success"]["high"] for a in record["attacks"] if a["kind"] in ("iterative", "optimization")]
    if not transfer or not white_box:
        return NOT_CHECKED
    return WARN if max(other["success"]["rate"] for other in transfer) > max(white_box) else PASS
