"""What a picture shows, read back from its axes."""

import numpy as np

from advgan.data.datasets import Split
from advgan.goals import Untargeted
from advgan.records.attack import Row
from advgan.reports.image_grid import rows_grid
from advgan.reports.plots import confusion, distillation_curves, one_of_each_class
from advgan.reports.style import MISSED, REACHED, UNCOUNTED


def test_distillation_curves_stand_over_the_queries_of_their_run() -> None:
    def rows(*queries: int) -> list[dict[str, float]]:
        return [
            {
                "queries": count,
                "validation_success": 0.8,
                "validation_success_distilled": 0.9,
                "agreement_adversarial": 0.85,
            }
            for count in queries
        ]

    figure = distillation_curves([("static", rows(70, 80)), ("dynamic", rows(70, 130, 190))])
    static, dynamic = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["static", "dynamic"]
    assert [tick.get_text() for tick in dynamic.get_xticklabels()] == ["70", "130", "190"]
    drawn = {str(line.get_label()): line.get_xydata().tolist() for line in static.lines}
    assert drawn["success on the black box"] == [[70, 0.8], [80, 0.8]]
    assert drawn["success on the distilled network"] == [[70, 0.9], [80, 0.9]]
    assert drawn["same answer to an adversarial image"] == [[70, 0.85], [80, 0.85]]
    assert len(static.collections) == len(dynamic.collections) == 1  # the gap
    assert len(distillation_curves([("alone", rows(70))]).axes) == 1


def test_an_attack_on_files_shows_answers_by_name_and_the_scale_of_the_change() -> None:
    clean, change = np.full((3, 4, 4, 1), 0.5), np.linspace(-0.1, 0.1, 48).reshape(3, 4, 4, 1)
    rows = [
        Row("a", "a", 0, 1, counts=True, success=True),
        Row("b", "b", 1, 1, counts=True),
        Row("c", "c", 2, 0),
    ]
    figure = rows_grid(clean, clean + change, 0.1, Untargeted(), rows, ("ant", "$bee", "a long name"))
    axes = np.array(figure.axes[:9]).reshape(3, 3)
    assert [axis.get_title() for axis in axes[0]] == ["ant", r"\$bee", "a long na…"]
    assert [axis.get_title() for axis in axes[2]] == ["ant\n→ \\$bee", "\\$bee\n→ \\$bee", "a long na…\n→ ant"]
    assert [axis.title.get_color() for axis in axes[2]] == [REACHED, MISSED, UNCOUNTED]
    for column in range(3):
        assert np.allclose(axes[0, column].images[0].get_array(), clean[column, ..., 0])
        assert np.allclose(axes[2, column].images[0].get_array(), (clean + change)[column, ..., 0])
    for column, axis in enumerate(axes[1]):
        assert np.allclose(axis.images[0].get_array(), change[column, ..., 0])
        assert axis.images[0].get_clim() == (-0.1, 0.1)
    assert [tick.get_text() for tick in figure.axes[9].get_yticklabels()] == ["−0.1", "0", "+0.1"]
    colour = rows_grid(np.repeat(clean, 3, axis=-1), np.repeat(clean, 3, axis=-1), 0.1, Untargeted(), rows, None)
    tinted = clean + change * [1, 0, -1]
    changes = rows_grid(np.repeat(clean, 3, axis=-1), tinted, 0.1, Untargeted(), rows, None).axes[3:6]
    shown = np.stack([axis.images[0].get_array() for axis in changes])
    assert np.allclose(shown, 0.5 + change / 0.2 * [1, 0, -1])  # grey is no change
    assert len(colour.axes) == 9 and colour.axes[6].get_title() == "0 → 1"


def test_answers_are_shown_as_shares_of_their_true_class_before_and_under_attack() -> None:
    clean, attacked = np.array([[6, 2], [0, 4]]), np.array([[1, 7], [4, 0]])
    figure = confusion(clean, attacked)
    assert [axis.get_title() for axis in figure.axes] == ["clean", "under attack"]
    for axis, counts in zip(figure.axes, (clean, attacked), strict=True):
        assert np.allclose(axis.images[0].get_array(), counts / [[8], [4]])
        numbers = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axis.texts}
        assert numbers == {
            (row, column): str(counts[row, column]) for row, column in zip(*np.nonzero(counts), strict=True)
        }
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("answer", "true class")


def test_the_sample_has_the_first_right_image_of_each_class() -> None:
    split = Split(np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1), np.array([2, 0, 0, 2, 1, 2, 0, 3], np.int32))
    predictions = np.array([1, 1, 0, 2, 0, 2, 0, 3])
    sample = one_of_each_class(split, predictions)
    assert (sample.images.ravel().tolist(), sample.labels.tolist()) == ([2, 3, 7], [0, 2, 3])
    assert one_of_each_class(split, predictions, most=2).labels.tolist() == [0, 2]
