"""What a picture shows, read back from its axes."""

from advgan.evaluation.plots import distillation_curves


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
