"""How a budget of queries is spread: each image of it once, what is left over to the later rounds."""

from __future__ import annotations

from typing import Any

import pytest

from advgan.config.loading import parse_config
from advgan.errors import ConfigurationError
from advgan.training.query_plan import QueryPlan, query_plan


def plan(images: int = 1000, validation: int = 50, **changes: dict[str, Any]) -> QueryPlan:
    settings: dict[str, Any] = {
        "oracle": {"black_box": "target"},
        "distillation": {"rounds": 3},
        "training": {"epochs": 2},
    }
    for section, values in changes.items():
        settings[section] = {**settings[section], **values}
    return query_plan(parse_config(settings), images, validation)


def test_without_a_budget_every_image_is_queried_in_every_round() -> None:
    found = plan()
    assert found == QueryPlan(1000, (1000, 1000), 50, 6)
    assert found.total == 3000 + 50 * 7  # once on the clean images, then after each of 6 epochs


@pytest.mark.parametrize("budget", [10, 100, 700, 701, 702, 703, 3349, 3350])
def test_a_budget_is_spent_to_the_last_query(budget: int) -> None:
    found = plan(oracle={"query_budget": budget, "validation_queries": min(350, budget // 2 // 7 * 7)})
    sizes = [found.clean, *found.adversarial]
    assert found.total == budget
    assert sizes == sorted(sizes) and sizes[-1] - sizes[0] <= 1


def test_a_budget_of_more_than_there_are_images_is_not_spent() -> None:
    assert plan(oracle={"query_budget": 10_000, "validation_queries": 7000}).total == 3350


def test_an_allowance_has_to_reach_for_the_clean_images_too() -> None:
    assert plan(oracle={"query_budget": 100, "validation_queries": 13}).validation == 1
    assert plan(oracle={"query_budget": 100, "validation_queries": 7}).validation == 1
    assert plan(oracle={"query_budget": 100, "validation_queries": 0}).validation == 0
    with pytest.raises(ConfigurationError, match="use 0, or 7 or more"):
        plan(oracle={"query_budget": 100, "validation_queries": 6})


def test_labels_of_ones_own_leave_the_budget_to_the_later_rounds() -> None:
    found = plan(
        oracle={"query_budget": 101, "validation_queries": 0},
        distillation={"clean_answers": "labels"},
    )
    assert found == QueryPlan(0, (50, 51), 0, 6)


def test_a_round_without_an_image_cannot_be() -> None:
    assert plan(oracle={"query_budget": 3, "validation_queries": 0}).total == 3
    with pytest.raises(ConfigurationError, match="is not enough for 3 rounds"):
        plan(oracle={"query_budget": 2, "validation_queries": 0})
