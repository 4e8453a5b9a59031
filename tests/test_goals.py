"""Which images count, and what counts as success, for NumPy arrays and TensorFlow tensors alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from advgan.goals import Targeted, Untargeted

pytestmark = pytest.mark.addons
LABELS = np.array([0, 0, 1, 1, 2, 2, 3], np.int32)
ANSWERS = np.array([0, 1, 1, 2, 3, 2, 3], np.int32)
kinds = pytest.mark.parametrize("kind", [np.asarray, tf.constant], ids=["numpy", "tensorflow"])
Kind = Callable[[np.ndarray], Any]


@kinds
def test_untargeted_counts_the_images_classified_correctly_when_clean(kind: Kind) -> None:
    eligible = Untargeted().eligible(kind(LABELS), kind(ANSWERS))
    assert np.asarray(eligible).tolist() == [True, False, True, False, False, True, True]


@kinds
def test_untargeted_is_reached_by_any_wrong_class(kind: Kind) -> None:
    reached = Untargeted().reached(kind(LABELS), kind(ANSWERS))
    assert np.asarray(reached).tolist() == [False, True, False, True, True, False, False]


@kinds
def test_targeted_leaves_out_images_labelled_or_classified_as_the_target_when_clean(kind: Kind) -> None:
    # Wrong when clean is no reason to leave an image out (index 1); 3 and 4 are answered 2, labelled 2.
    eligible = Targeted(2).eligible(kind(LABELS), kind(ANSWERS))
    assert np.asarray(eligible).tolist() == [True, True, True, False, False, False, True]


@kinds
def test_targeted_is_reached_by_the_target_class_alone(kind: Kind) -> None:
    reached = Targeted(2).reached(kind(LABELS), kind(ANSWERS))
    assert np.asarray(reached).tolist() == [False, False, False, True, False, True, False]


@kinds
def test_the_loss_pushes_the_true_class_or_the_target_class(kind: Kind) -> None:
    assert np.asarray(Untargeted().margin_class(kind(LABELS))).tolist() == LABELS.tolist()
    assert np.asarray(Targeted(3).margin_class(kind(LABELS))).tolist() == [3] * 7
    assert np.asarray(Targeted(0).margin_class(kind(LABELS))).dtype == np.int32


@kinds
@pytest.mark.parametrize("goal", [Untargeted(), Targeted(0), Targeted(3), Targeted(9)], ids=str)
def test_an_image_left_as_it_is_never_counts_as_a_success(goal: Untargeted | Targeted, kind: Kind) -> None:
    labels, answers = (grid.ravel().astype(np.int32) for grid in np.meshgrid(np.arange(10), np.arange(10)))
    eligible = np.asarray(goal.eligible(kind(labels), kind(answers)))
    reached = np.asarray(goal.reached(kind(labels), kind(answers)))
    assert eligible.dtype == reached.dtype == bool
    assert eligible.sum() == (10 if isinstance(goal, Untargeted) else 81)
    assert not (eligible & reached).any()


def test_goals_are_values() -> None:
    assert Targeted(3) == Targeted(3) != Targeted(4)
    assert Untargeted() == Untargeted() != Targeted(0)
    assert str(Untargeted()) == "untargeted (any wrong class)"
    assert str(Targeted(3)) == "targeted (class 3)"
