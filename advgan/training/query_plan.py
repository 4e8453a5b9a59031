"""How many queries a black box gets, and when: the budget spread over rounds and validations."""

from __future__ import annotations

from dataclasses import dataclass

from advgan.config.settings import Config
from advgan.errors import ConfigurationError


@dataclass(frozen=True)
class QueryPlan:
    """How many queries the black box gets, and when: a function of the settings alone."""

    clean: int
    """Before the first round."""
    adversarial: tuple[int, ...]
    """Before each further round."""
    validation: int
    """In each validation, and once on the clean images; 0 where the black box does not validate."""
    validations: int

    @property
    def total(self) -> int:
        """Of the whole run, but for scoring."""
        return self.clean + sum(self.adversarial) + self.validation * (1 + self.validations)


def query_plan(config: Config, attacker_images: int, validation_images: int) -> QueryPlan:
    """Spread the budget evenly: over the clean images and the later rounds, the validation apart.

    Args:
        config: of a black-box run.
        attacker_images: the attacker's training images, the most that are asked about at a time.
        validation_images: the most in a validation.

    Raises:
        ConfigurationError: the budget does not reach, so that one of these would get no image.
    """
    oracle, settings = config.oracle, config.distillation
    validations, allowance = config.generator_epochs, oracle.validation_allowance
    validation = min(validation_images, allowance // (1 + validations))
    if allowance and not validation:
        raise ConfigurationError(
            "oracle.validation_queries",
            allowance,
            f"is not enough for {validations} validations and the clean images; use 0, or {1 + validations} or more",
        )
    asked_of_clean = settings.clean_answers == "black_box"
    parts = settings.rounds - (not asked_of_clean)
    if oracle.query_budget is None:
        sizes = [attacker_images] * parts
    else:
        left = oracle.query_budget - validation * (1 + validations)
        sizes = [min(attacker_images, left // parts + (part >= parts - left % parts)) for part in range(parts)]
    if min(sizes) < 1:
        raise ConfigurationError(
            "oracle.query_budget", oracle.query_budget, f"is not enough for {settings.rounds} rounds; use fewer rounds"
        )
    return (
        QueryPlan(sizes[0], tuple(sizes[1:]), validation, validations)
        if asked_of_clean
        else QueryPlan(0, tuple(sizes), validation, validations)
    )
