"""The report card: the checklist of Carlini et al. 2019, *On Evaluating Adversarial Robustness*, line by line.

The checklist was written for those who propose a defence; here it is applied to the evaluation of an attack on a
classifier. Each line says pass, warn or not checked, and why. No line is passed that this program did not look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advgan.records.evaluation import CardLine, ComparedAttack, Evaluation, Transfer
from advgan.records.finding import NOT_CHECKED, PASS, WARN, Finding, Status

SEVERE, PITFALLS, SPECIAL = "Severe flaws", "Pitfalls", "Special cases"


@dataclass(frozen=True)
class _Facts:
    """An evaluation, and what several questions look at."""

    evaluation: Evaluation
    guards: dict[str, Finding]
    pgd: ComparedAttack | None
    square: ComparedAttack | None
    transfer: list[Transfer]
    """To other classifiers than the target."""
    black_box: bool


Answer = tuple[Status, str]
Judge = Callable[[_Facts], Answer]


@dataclass(frozen=True)
class Question:
    """One question of the checklist."""

    section: str
    item: str
    judge: Judge
    """Answers it: the status, and why."""


def report_card(evaluation: Evaluation) -> tuple[CardLine, ...]:
    """Answer every question of the checklist from an evaluation."""
    facts = _Facts(
        evaluation,
        {found.guard: found for found in evaluation.guards},
        next((attack for attack in evaluation.attacks if attack.kind == "iterative"), None),
        evaluation.attack("square"),
        [other for other in evaluation.transfer if other.sha256 != evaluation.target.sha256],
        evaluation.queries is not None,
    )
    lines = []
    for question in CHECKLIST:
        status, reason = question.judge(facts)
        lines.append(CardLine(section=question.section, item=question.item, status=status, reason=reason))
    return tuple(lines)


# --- Ways to judge -----------------------------------------------------------------------------------------------


def _always(status: Status, reason: str) -> Judge:
    return lambda _: (status, reason)


def _not_checked(reason: str) -> Judge:
    return _always(NOT_CHECKED, reason)


def _stated(reason: Callable[[Evaluation], str]) -> Judge:
    """Passed, because the evaluation says it."""
    return lambda facts: (PASS, reason(facts.evaluation))


def _guard(name: str) -> Judge:
    """What a guard found."""
    return lambda facts: (facts.guards[name].status, facts.guards[name].reason)


def _passed_if(holds: object) -> Status:
    return PASS if holds else WARN


# --- Answers that need more than a line --------------------------------------------------------------------------


def _knows_the_classifier(facts: _Facts) -> Answer:
    if facts.black_box:
        return NOT_CHECKED, "a black box: only its answers are used"
    if facts.pgd:
        return PASS, "FGSM, PGD and FMN follow the gradient of the whole classifier"
    return WARN, "no attack could follow the gradient of the classifier"


def _loss_fits(facts: _Facts) -> Answer:
    if facts.black_box:
        return PASS, "margin of the distilled network's logits for AdvGAN, of the black box's answers for Square"
    return facts.guards["logits"].status, "margin of logits for AdvGAN, FMN and PGD, cross-entropy for FGSM and PGD"


def _converged(facts: _Facts) -> Answer:
    if facts.pgd is None:
        return NOT_CHECKED, "PGD did not run"
    steps = facts.pgd.settings["steps"]
    return NOT_CHECKED, f"PGD took {steps} steps; an evaluation with --pgd-steps {2 * steps} tells whether more help"


def _strongest(facts: _Facts) -> Answer:
    if facts.black_box:
        square = facts.square
        tried = f"Square, {square.settings['queries_per_image']:,} queries an image" if square else "none"
        return WARN, f"query-based attacks: {tried}; --square-queries 10000 is stronger"
    restarts = facts.pgd.settings["restarts"] if facts.pgd else 0
    status = _passed_if(restarts > 1)
    return status, f"starts of PGD: {restarts}" + ("" if status == PASS else "; --restarts 10 is stronger")


def _available(facts: _Facts) -> Answer:
    commit = facts.evaluation.commit
    if commit is None or commit.endswith("-dirty"):
        return WARN, f"commit {commit or 'unknown'}: not the code that ran"
    return PASS, f"commit {commit}, networks with their SHA-256"


def _one_command(facts: _Facts) -> Answer:
    command = facts.evaluation.command
    return _passed_if(command), command or "unknown"


def _extends(facts: _Facts) -> Answer:
    left = facts.evaluation.full_range
    highest = max(point.success.rate for point in facts.evaluation.curve)
    status = _passed_if(highest == 1 or (left is not None and left.successes == 0))
    accuracy = "(did not run)" if left is None else f"{left.rate:.1%}"
    return status, f"the scaled perturbation reaches {highest:.2%}; PGD at epsilon 1 leaves an accuracy of {accuracy}"


def _without_gradient(facts: _Facts) -> Answer:
    others = f", and transfer to {len(facts.transfer)} other classifier(s)" if facts.transfer else ""
    if facts.black_box:
        square = ", and Square" if facts.square else "; Square was not measured"
        reason = f"noise, and FGSM and PGD by transfer from the distilled network{square}{others}"
    else:
        square = ", Square" if facts.square else ""
        added = "; --transfer adds classifiers, --square-queries an attack" if not (square or others) else ""
        reason = f"noise{square}{others}{added}"
    return _passed_if(facts.transfer or facts.square), reason


def _all_images(facts: _Facts) -> Answer:
    data = facts.evaluation.data
    return _passed_if(data.all_test_images), f"{data.images:,} of {data.of:,}"


def _diverse(facts: _Facts) -> Answer:
    attacks = facts.evaluation.attacks
    status = _passed_if(len({attack.kind for attack in attacks}) > 2)
    return status, "a generator, " + ", ".join(attack.name for attack in attacks)


def _hard_label(facts: _Facts) -> Answer:
    queries = facts.evaluation.queries
    if facts.square is not None and queries is None:
        return WARN, "Square uses no gradient, but it uses logits; no hard-label attack ran"
    if facts.square is None or queries is None:
        return WARN, "noise needs neither gradients nor scores, but it does not search"
    if queries.answers == "labels":
        return PASS, "Square with class labels only, as for AdvGAN: without scores it tries squares blindly"
    return WARN, "Square uses no gradient, but it uses probabilities; no hard-label attack ran"


def _transfer_is_weaker(facts: _Facts) -> Answer:
    attacks = facts.evaluation.attacks
    white_box = [attack.success.high for attack in attacks if attack.kind in ("iterative", "optimization")]
    if not facts.transfer:
        return NOT_CHECKED, "no other classifier was given"
    reason = "; ".join(f"{other.name}: {other.success}" for other in facts.transfer)
    if not white_box:
        return NOT_CHECKED, reason
    return _passed_if(max(other.success.rate for other in facts.transfer) <= max(white_box)), reason


def _random_start(facts: _Facts) -> Answer:
    if facts.pgd:
        return PASS, "PGD starts at a random point within epsilon"
    if facts.square:
        return PASS, "Square starts at random stripes of epsilon"
    return NOT_CHECKED, "PGD did not run"


def _random_noise(facts: _Facts) -> Answer:
    noise = [str(attack.success) for attack in facts.evaluation.attacks if attack.kind == "noise"]
    return WARN, f"two kinds, one draw each: {'; '.join(noise)}"


def _both_goals(facts: _Facts) -> Answer:
    goal = facts.evaluation.goal
    other = "untargeted" if goal == "targeted" else "targeted"
    return WARN, f"{goal} only; evaluate a run that is {other} too"


def _other_classifiers(facts: _Facts) -> Answer:
    if facts.transfer:
        return PASS, f"{len(facts.transfer)} by transfer"
    return NOT_CHECKED, "no other classifier was given"


# --- The checklist -----------------------------------------------------------------------------------------------

CHECKLIST = (
    Question(
        SEVERE,
        "The list was not followed mindlessly",
        _not_checked("a program filled it in; a reader has to think"),
    ),
    Question(
        SEVERE,
        "Threat model: the attacker's goal, knowledge and capabilities are stated",
        _stated(lambda evaluation: evaluation.threat_model),
    ),
    Question(SEVERE, "Threat model: the attacker knows how the classifier works", _knows_the_classifier),
    Question(
        SEVERE,
        "Threat model: it models a real adversary",
        _not_checked("depends on where the classifier is used"),
    ),
    Question(
        SEVERE,
        "Threat model: the bound on the perturbation is justified",
        lambda facts: (
            NOT_CHECKED,
            f"L_inf with epsilon {facts.evaluation.epsilon:.4g} is the configuration's; its author has to justify it",
        ),
    ),
    Question(SEVERE, "Adaptive attacks: they see the whole classifier, end to end", _guard("gradients")),
    Question(SEVERE, "Adaptive attacks: the loss fits the goal", _loss_fits),
    Question(SEVERE, "Adaptive attacks: the strongest ones were used", _strongest),
    Question(SEVERE, "Code and networks are available", _available),
    Question(SEVERE, "One command reproduces the evaluation", _one_command),
    Question(SEVERE, "Clean accuracy is reported", _stated(lambda evaluation: str(evaluation.clean_accuracy))),
    Question(
        SEVERE,
        "A ROC curve where inputs are rejected",
        _not_checked("does not apply: the classifier answers every image"),
    ),
    Question(SEVERE, "Sanity: many steps do better than one", _guard("iterative beats single step")),
    Question(SEVERE, "Sanity: success rises with epsilon", _guard("success rises with epsilon")),
    Question(SEVERE, "Sanity: at the full range accuracy falls to chance", _guard("full range reaches chance")),
    Question(
        SEVERE,
        "Success against epsilon is drawn",
        _stated(lambda evaluation: f"{len(evaluation.curve)} values of epsilon from 0 to 1"),
    ),
    Question(SEVERE, "The curve extends until an attack always succeeds", _extends),
    Question(
        SEVERE,
        "Unbounded attacks report distortion",
        _not_checked("does not apply: all attacks are bounded by epsilon"),
    ),
    Question(SEVERE, "White-box attacks do better than others", _guard("white-box beats black-box")),
    Question(
        SEVERE,
        "Attacks are compared image by image",
        _stated(lambda evaluation: f"all together fool {evaluation.worst_case}"),
    ),
    Question(SEVERE, "Black-box, transfer and noise attacks were tried", _without_gradient),
    Question(
        SEVERE,
        "Attacks are described with all settings",
        _always(PASS, "evaluation.json, attacks[].settings, and the run's config"),
    ),
    Question(SEVERE, "All test images were used", _all_images),
    Question(SEVERE, "No scored image was trained on", _guard("held-out images")),
    Question(PITFALLS, "The attacks are diverse", _diverse),
    Question(PITFALLS, "A gradient-free and a hard-label attack", _hard_label),
    Question(
        PITFALLS, "Transfer: success on other classifiers is below that of white-box attacks", _transfer_is_weaker
    ),
    Question(PITFALLS, "Randomness is averaged over, or there is none", _guard("repeats")),
    Question(PITFALLS, "Parts without a gradient are replaced, or there are none", _guard("gradients")),
    Question(PITFALLS, "The attacks have converged", _converged),
    Question(PITFALLS, "The search starts at a random offset", _random_start),
    Question(PITFALLS, "Sensitivity to the attacks' settings", _not_checked("one setting of each was run")),
    Question(PITFALLS, "Comparison with prior work", _not_checked("the README states the paper's figures")),
    Question(PITFALLS, "Broader threat models (rotation, corruption, Gaussian noise)", _not_checked("L_inf only")),
    Question(SPECIAL, "Provable bounds", _not_checked("none was computed")),
    Question(SPECIAL, "Random noise of the right norm, 10,000 draws per image", _random_noise),
    Question(SPECIAL, "It is stated whether attacks are targeted", _stated(lambda evaluation: evaluation.goal)),
    Question(SPECIAL, "Targeted and untargeted attacks were used", _both_goals),
    Question(
        SPECIAL,
        "Ablations",
        _not_checked("no part of a defence was taken out; a run's summary.json has the target's adversarial training"),
    ),
    Question(SPECIAL, "The new attack was tried on other classifiers", _other_classifiers),
    Question(SPECIAL, "Domains other than images", _always(PASS, "stated: images only")),
    Question(
        SPECIAL,
        "Success is per image: the mean over images of the best attack",
        _stated(lambda evaluation: str(evaluation.worst_case)),
    ),
)
