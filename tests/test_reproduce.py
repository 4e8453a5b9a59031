"""Tables of results: what their files may hold, pages made from records, a real small table stopped and gone on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from advgan import reference_run, reproduce
from advgan.config.loading import dump_config
from advgan.config.settings import Config
from advgan.config.table import Table, find_table, load_table
from advgan.errors import AdvGANError, BlackBoxUnavailable, ConfigurationError, Interrupted, NonFiniteError
from advgan.experiments import reproduce as reproduce_experiment
from advgan.experiments import train as train_experiment
from advgan.files import read_json
from advgan.metrics import PairedDifference, Rate
from advgan.records.evaluation import QueryCurve, QueryPoint
from advgan.records.results_table import DoneRun, TableRecord, TableSection
from advgan.reports.plots import success_against_queries
from advgan.reports.results_table import as_markdown, points_against_queries
from advgan.run_folder import located

TINY = [
    "data.training_images=512",
    "data.validation_images=100",
    "data.test_images=150",
    "target.epochs=1",
    "target.batch_size=64",
    "generator.widths=[4, 8, 16]",
    "generator.residual_blocks=1",
    "training.epochs=1",
    "training.batch_size=64",
]


def row(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "config": "mnist.yaml", "seeds": [0], **changes}


def section(**changes: Any) -> dict[str, Any]:
    return {"title": "First", "rows": [row()], **changes}


def written(folder: Path, *sections: dict[str, Any], **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({"title": "Small", "sections": list(sections), **changes}))
    return path


# What a table's file may hold


def test_the_table_that_ships_is_whole() -> None:
    table = load_table(find_table("results"))
    rows = [row for section in table.sections for row in section.rows]
    assert find_table("results.yaml") == find_table("results")
    assert {row.name: row.paper for row in rows}["model C, static"] == "87.3"
    budgets = [row.configuration(0).oracle.query_budget for row in rows if "quer" in row.name or row.name == "no limit"]
    assert budgets == [1000, 1000, 10_000, 10_000, 100_000, None]  # at random, and where f is least sure
    assert [section.picture for section in table.sections if section.title == "Queries"] == ["queries"]


def test_a_row_is_what_the_training_command_takes(tmp_path: Path) -> None:
    changes = ["attack.epsilon=0.2", "generator.widths=[4, 8]"]
    table = load_table(written(tmp_path, section(rows=[row(set=changes, seeds=[3, 1], paper=93.4)])))
    read = table.sections[0].rows[0]
    assert read.configuration(1).attack.epsilon == 0.2
    assert read.configuration(1).seed == 1
    assert read.paper == "93.4"
    options = "--config mnist.yaml --set attack.epsilon=0.2 --set 'generator.widths=[4, 8]' --set seed=3"
    assert read.command(3) == f"python -m advgan.train {options}"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            [section(rows=[row(confg="x")])],
            "sections.0.rows.0.confg = 'x': unknown key; did you mean sections.rows.conf",
        ),
        ([section(rows=[row(seeds=[])])], "sections.0.rows.0.seeds = []: should be a list"),
        ([section(rows=[row(seeds=[-1])])], "sections.0.rows.0.seeds.0 = -1: should be greater"),
        ([section(rows=[row(seeds=[1, 1])])], "row 'one' has a seed twice"),
        ([section(rows=[row(set=["seed=1"])])], "set = 'seed=1': row 'one' cannot set this"),
        ([section(rows=[row(set=["output.directory=x"])])], "row 'one' cannot set this"),
        ([section(rows=[row(set=["attack.epsilonn=1"])])], "First: one: attack.epsilonn = 1: unknown key"),
        ([section(rows=[row(config="mnst")])], "did you mean mnist?"),
        ([section(rows=[row(), row()])], "name = 'one': two rows of section 'First' have this name"),
        ([section(), section()], "title = 'First': two sections have this title"),
        ([section(picture="epsilon")], "sections.0.picture = 'epsilon': should be 'queries'"),
        ([{"title": "First"}], "sections.0.rows = None: is needed"),
        ([], "sections = []: should be a list"),
    ],
)
def test_a_table_that_cannot_work_is_refused_in_one_line(
    tmp_path: Path, sections: list[dict[str, Any]], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, *sections)
    assert reproduce.main([str(path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["reslts"]) == 2
    assert "TABLE = 'reslts': no such file, here, in ./configs/tables" in capsys.readouterr().err


# The page made from records

ENVIRONMENT = {
    "device": "A processor",
    "cores": 2,
    "python": "3.11.7",
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
    "numpy": "2.4.6",
    "advgan": "0.1.0",
}


def described(name: str, seeds: list[int], black_box: bool = False, paper: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "options": ["--config", "mnist.yaml"],
        "seeds": seeds,
        "black_box": black_box,
        "paper": paper,
    }


def done(name: str, seed: int, successes: int, title: str = "First", **changes: Any) -> dict[str, Any]:
    return {
        "section": title,
        "row": name,
        "seed": seed,
        "folder": f"runs/{name}-01234567/seed-{seed}",
        "config": "mnist.yaml",
        "set": [],
        "command": f"python -m advgan.train --config mnist.yaml --set seed={seed}",
        "state": "done",
        "commits": ["abc"],
        "environments": [ENVIRONMENT],
        "clean_accuracy": vars(Rate.of(990, 1000)),
        "success": vars(Rate.of(successes, 990)),
        "success_8_bit": vars(Rate.of(successes - 10, 990)),
        "queries": None,
        "distilled": None,
        "seconds": {"target_training": 30.0, "generator_training": 300.0, "this_process": 400.0},
        "queries_curve": None,
        **changes,
    }


def asked(name: str, seed: int, successes: int, title: str = "First", **changes: Any) -> dict[str, Any]:
    queries = {"clean": 30_000, "adversarial": 15_000, "validation": 5_000, "scoring": 12_345}
    agreement = {"agreement_clean": 0.99, "agreement_adversarial": 0.9}
    distilled = {"architecture": "lenet", "success": vars(Rate.of(985, 990)), **agreement}
    return done(name, seed, successes, title, **{"queries": queries, "distilled": distilled, **changes})


def page(rows: list[dict[str, Any]], runs: list[dict[str, Any]], **changes: Any) -> str:
    first = {"title": "First", "text": None, "picture": None, "rows": rows, **changes}
    content = {
        "schema": 1,
        "table": "small",
        "title": "Small",
        "text": "An introduction.",
        "command": "python -m advgan.reproduce small",
        "sections": [first],
        "runs": runs,
    }
    return as_markdown(TableRecord.model_validate(content))


def lines_of(text: str) -> dict[str, list[str]]:
    """The cells of every line of a page's tables, by its first cell."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in found}


def test_two_seeds_make_a_mean_a_spread_and_one_interval() -> None:
    text = page([described("one", [0, 1], paper="97.9")], [done("one", 0, 960), done("one", 1, 980)])
    pooled = Rate.of(1940, 1980)
    head, cells = lines_of(text)["row"], lines_of(text)["one"]
    assert head == [
        *("row", "configuration", "seeds", "clean accuracy", "success", "Wilson 95 %", "after 8 bits", "paper", "time")
    ]
    assert cells == [
        "one",
        "`--config mnist.yaml`",
        "0, 1",
        "99.00",
        "97.98 [96.97, 98.99]",
        f"{100 * pooled.low:.2f} to {100 * pooled.high:.2f}",
        "96.97",
        "97.9",
        "5 min",
    ]
    assert "Not finished" not in text and "distilled" not in text and "different" not in text
    assert "An introduction." in text and "    python -m advgan.reproduce small" in text
    assert "- commit: abc\n- machine: A processor, 2 cores\n- versions: Python 3.11.7, TensorFlow 2.21.0" in text


def test_seeds_that_attack_different_numbers_of_images_count_by_image_in_the_interval_alone() -> None:
    runs = [
        asked("box", 0, 450, success=vars(Rate.of(450, 900)), success_8_bit=vars(Rate.of(360, 900))),
        asked(
            "box",
            1,
            100,
            success=vars(Rate.of(100, 500)),
            success_8_bit=vars(Rate.of(50, 500)),
            clean_accuracy=vars(Rate.of(500, 800)),
            queries={"clean": 30_000, "adversarial": 10_000, "scoring": 9},
        ),
    ]
    cells = lines_of(page([described("box", [0, 1], black_box=True)], runs))["box"]
    pooled = binomtest(550, 1400).proportion_ci(method="wilson")
    assert cells[3:7] == [
        "80.75",
        "35.00 [20.00, 50.00]",
        f"{100 * pooled.low:.2f} to {100 * pooled.high:.2f}",
        "25.00",
    ]
    assert cells[8:10] == ["45,000", "50"]  # 50,000 for 1,000 images and 40,000 for 800
    section = {"title": "First", "text": None, "picture": None, "rows": [described("box", [0, 1])]}
    points, _ = points_against_queries(TableSection.model_validate(section), [*map(DoneRun.model_validate, runs)])
    assert points[0].success == Rate.of(550, 1400)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.6, "1 s"), (61, "61 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (6000, "1 h 40 min")],
)
def test_times_are_in_the_largest_unit_that_tells_them_apart(seconds: float, words: str) -> None:
    run = done(
        "one", 0, 960, seconds={"target_training": 1000.0, "generator_training": seconds, "this_process": 2000.0}
    )
    assert lines_of(page([described("one", [0])], [run]))["one"][-1] == words


def test_seeds_that_are_missing_or_failed_are_told() -> None:
    which = {key: done("two", 1, 500)[key] for key in ("section", "row", "seed", "folder", "config", "set", "command")}
    failed = {**which, "state": "failed", "problem": "L is\nNaN"}
    rows = [described("one", [0, 1, 2]), described("two", [0, 1]), described("three", [0, 1]), described("four", [1])]
    text = page(rows, [done("one", 1, 960), done("two", 0, 960), failed, {**failed, "row": "four"}])
    cells = lines_of(text)
    assert cells["one"][2] == "1 (not run yet: 0, 2)"
    assert cells["one"][4] == "96.97"
    assert cells["two"][2] == "0 (failed: 1)"
    assert cells["three"][2:] == ["not run yet: 0, 1", "–", "not run yet (0 of 2 seeds done)", "–", "–", "–"]
    assert cells["four"][4] == "failed (0 of 1 seeds done)"
    assert "- Failed: two, seed 1: L is NaN\n" in text
    assert "**Not finished: 2 of 8 results are there.**" in text
    assert len({len(each) for each in cells.values()}) == 1


def test_black_boxes_have_queries_and_the_distilled_network_beside_rows_that_have_none() -> None:
    rows = [described("box", [0, 1], black_box=True), described("white", [0]), described("later", [0], black_box=True)]
    text = page(rows, [asked("box", 0, 900), asked("box", 1, 910), done("white", 0, 980)])
    cells = lines_of(text)
    assert cells["row"][7:10] == ["on the distilled network", "queries", "queries per image"]
    assert cells["box"][7:10] == ["99.49", "50,000", "50"]  # scoring is the experimenter's
    assert cells["white"][7:10] == cells["later"][7:10] == ["–", "–", "–"]
    assert "paper" not in cells["row"]


def test_other_attacks_stand_beside_advgan_where_a_section_asks_for_them() -> None:
    def attack(name: str, successes: int) -> dict[str, Any]:
        rate = vars(Rate.of(successes, 100))
        return {
            "name": name,
            "kind": "iterative",
            "settings": {},
            "images": 100,
            "success": rate,
            "advgan_success": rate,
            "accuracy_under_attack": rate,
            "largest_linf": 0.3,
            "seconds_per_1000_images": 1.0,
        }

    first, second = np.arange(100) < 30, np.arange(100) < 10
    gap = asdict(PairedDifference.of(first, second))
    found = {"attacks": [attack("sign-noise", 1), attack("fgsm", 20), attack("pgd-40", 30)], "amortization_gap": gap}
    later = {"attacks": [attack("fgsm", 10), attack("pgd-40", 40)]}
    rows = [described("defended", [0, 1], paper="1 / 2 / 3"), described("waits", [0])]
    text = page(rows, [done("defended", 0, 99, **found), done("defended", 1, 99, **later)], attack_images=100)
    lines = lines_of(text)
    assert lines["row"] == [
        "row",
        "seeds",
        "clean accuracy",
        "fgsm",
        "pgd-40",
        "AdvGAN",
        "gap",
        "paper",
        "target, attack",
    ]
    assert lines["defended"][3:5] == ["15.00 [10.00, 20.00]", "35.00 [30.00, 40.00]"]
    assert lines["defended"][6:9] == ["20.0 [12.0, 28.4]", "1 / 2 / 3", "30 s, 5 min"]
    assert lines["waits"][1:3] == ["not run yet: 0", "–"] and len(lines["waits"]) == 9
    assert (
        "- defended: `--config mnist.yaml`" in text and "that of the others on the first 100; mean of the seeds" in text
    )


def test_a_section_may_show_the_accuracy_that_is_left_and_how_the_black_box_resists() -> None:
    def rate(successes: int) -> dict[str, Any]:
        return vars(Rate.of(successes, 100))

    pgd = {
        "name": "pgd-100",
        "kind": "iterative",
        "settings": {},
        "images": 100,
        "success": rate(5),
        "advgan_success": rate(3),
        "accuracy_under_attack": rate(93),
        "largest_linf": 0.3,
        "seconds_per_1000_images": 1.0,
    }
    names = ("clean", "fgsm", "pgd_cross_entropy", "pgd_margin", "pgd")
    resists = {"epsilon": 0.3, **dict(zip(names, map(rate, (98, 95, 92, 91, 90)), strict=True))}
    found = {
        "attacks": [pgd],
        "accuracy_under_attack": rate(96),
        "defence": {"method": "pgd", "epochs": [], "robustness": resists},
    }
    rows = [described("box", [0], black_box=True), described("waits", [0], black_box=True)]
    shown = {
        show: lines_of(page(rows, [done("box", 0, 30, **found)], attack_images=100, show=show))
        for show in ("success", "accuracy")
    }
    assert shown["success"]["row"][2:6] == ["clean accuracy", "black box under PGD", "pgd-100", "AdvGAN"]
    assert shown["success"]["box"][3:6] == ["90.00", "5.00", "3.03"]
    assert shown["accuracy"]["box"][3:6] == ["90.00", "93.00", "96.00"]
    assert len(shown["accuracy"]["waits"]) == len(shown["accuracy"]["row"])


def test_a_text_with_bars_stays_in_its_cell() -> None:
    text = page([described("a | b", [0])], [])
    assert "| a \\| b | `--config" in text


def test_runs_made_differently_are_told() -> None:
    other = done("one", 1, 970, commits=["def"], environments=[{**ENVIRONMENT, "device": "Another"}])
    text = page([described("one", [0, 1])], [done("one", 0, 960), other])
    assert "- **different commits**: abc (1 runs); def (1 runs)" in text
    assert "- **different machines**: A processor, 2 cores (1 runs); Another, 2 cores (1 runs)" in text
    assert "- versions: Python" in text


def test_a_run_without_a_checkout_has_an_unknown_commit() -> None:
    assert "- commit: unknown" in page([described("one", [0])], [done("one", 0, 960, commits=[None])])


def test_the_picture_has_a_point_for_each_black_box_and_the_curves_of_the_evaluations() -> None:
    steps = [QueryPoint(queries_per_image=x, success=x / 1000) for x in (0, 10, 100, 1000)]
    curve = QueryCurve(name="Square", points=tuple(steps))
    runs = [
        asked("few", 0, 500, queries_curve=curve),
        asked("many", 0, 900, queries_curve=curve),
        done("white", 0, 990),
    ]
    rows = [described(name, [0]) for name in ("few", "many", "white", "later")]
    section = TableSection.model_validate({"title": "First", "text": None, "picture": None, "rows": rows})
    points, curves = points_against_queries(section, [DoneRun.model_validate(run) for run in runs])
    assert [(point.name, point.queries_per_image) for point in points] == [("few", 50), ("many", 50)]
    assert points[0].success == Rate.of(500, 990)
    assert curves == [curve]
    axis = success_against_queries(points, curves).axes[0]
    assert axis.get_xscale() == "log"
    assert sorted(axis.get_legend_handles_labels()[1]) == ["AdvGAN, few", "AdvGAN, many", "Square"]
    assert list(axis.lines[-1].get_xdata()) == [10, 100, 1000]
    with_intervals = QueryCurve(name="S", points=(QueryPoint(queries_per_image=10.0, success=Rate.of(1, 2)),))
    assert success_against_queries(points, [with_intervals]).axes[0].collections


# The work


def work_of(folder: Path, *sections: dict[str, Any]) -> reproduce_experiment.Reproduction:
    table = load_table(written(folder, *sections))
    return reproduce_experiment.Reproduction("small", table, folder / "out", "python -m advgan.reproduce small")


def test_every_first_seed_goes_before_any_second(tmp_path: Path) -> None:
    rows = [row(seeds=[0, 1, 2]), row(name="two", seeds=[5], set=["attack.epsilon=0.2"])]
    work = work_of(tmp_path, section(rows=rows), section(title="Second", rows=[row(name="other", seeds=[1, 0])]))
    order = [(cell.row.name, cell.seed) for cell in work.cells()]
    assert order == [("one", 0), ("two", 5), ("other", 1), ("one", 1), ("other", 0), ("one", 2)]
    assert [cell.row.name for cell in work.cells("SECOND")] == ["other", "other"]
    folders = {(cell.row.name, cell.seed): cell.folder for cell in work.cells()}
    assert folders["one", 0] == folders["other", 0]  # the same settings: one run for both
    assert folders["one", 0].parent == folders["one", 2].parent != folders["two", 5].parent
    assert folders["one", 0].parent.name[:4] == "one-" and len(folders["one", 0].parent.name) == len("one-") + 8
    with pytest.raises(AdvGANError, match=r"--only = 'x'.*sections: First, Second"):
        work.cells("x")


def test_one_run_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("one", "two", "three", "four")
    rows = [row(name=name, set=[f"attack.epsilon=0.{number}"]) for number, name in enumerate(names, 1)]
    path, out, tried = written(tmp_path, section(rows=rows)), tmp_path / "out", []
    works = False

    def fake(cell: reproduce_experiment.Cell, *_: object) -> None:
        tried.append(cell.row.name)
        if not works and cell.row.name == "two":
            raise NonFiniteError("loss_adv", 7, "generator.learning_rate")
        if not works and cell.row.name == "three":
            raise BlackBoxUnavailable("the black box does not answer")

    monkeypatch.setattr(reproduce_experiment, "_run", fake)
    assert reproduce.main([str(path), "--output", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: 2 runs failed; the same command tries again\n"
    assert "two, seed 0 failed: loss_adv is not finite at step 7" in captured.out
    assert tried == list(names)
    text = (out / "small.md").read_text()
    assert "- Failed: two, seed 0: loss_adv is not finite at step 7" in text and "- Failed: three, seed 0" in text
    assert reproduce.main([str(path), "--output", str(out), "--list"]) == 0
    assert "failed  First: two, seed 0" in capsys.readouterr().out
    works = True
    assert reproduce.main([str(path), "--output", str(out), "--only", "two"]) == 0
    assert "Failed: two" not in (out / "small.md").read_text()
    assert "Failed: three" in (out / "small.md").read_text()


def test_a_stop_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted("stopped at step 5")

    monkeypatch.setattr(reproduce_experiment, "_run", stopped)
    path, out = written(tmp_path, section()), tmp_path / "out"
    assert reproduce.main([str(path), "--output", str(out)]) == 130
    assert capsys.readouterr().err == "stopped at step 5; run the same command again to continue\n"
    assert "not run yet (0 of 1 seeds done)" in (out / "small.md").read_text()


def test_records_of_something_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, section()), tmp_path / "out"
    out.mkdir()
    (out / "small.json").write_text("[]")
    assert reproduce.main([str(path), "--output", str(out)]) == 2
    assert "is not a table's records of this version" in capsys.readouterr().err


def test_looking_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, section()), tmp_path / "out"
    assert reproduce.main([str(path), "--output", str(out), "--list"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("to do   First: one, seed 0") and listed.endswith("0 of 1 runs are done.\n")
    assert reproduce.main([str(path), "--output", str(out), "--dry-run"]) == 0
    assert "python -m advgan.train --config mnist.yaml --set seed=0" in capsys.readouterr().out
    assert not out.exists()


def test_a_table_stopped_after_a_run_goes_on_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(seeds=[0, 1], set=TINY, paper="97.9"), row(name="two", set=[*TINY, "attack.epsilon=0.2"])]
    same = section(title="Again", rows=[row(name="again", set=TINY)], attack_images=20)
    path, out = written(tmp_path, section(rows=rows), same), tmp_path / "out"
    trained: list[tuple[float, int]] = []
    real, stop_at = train_experiment._train_generator, 1

    def counted(state: Any, plan: Any, *rest: Any) -> None:
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        trained.append((plan.config.attack.epsilon, plan.config.seed))
        real(state, plan, *rest)

    monkeypatch.setattr(train_experiment, "_train_generator", counted)
    arguments = [str(path), "--output", str(out)]
    assert reproduce.main(arguments) == 130
    assert trained == [(0.3, 0)]
    content = read_json(out / "small.json")
    assert [(run["row"], run["state"]) for run in content["runs"]] == [("one", "done")]  # one is not evaluated yet
    assert lines_of((out / "small.md").read_text())["one"][2] == "0 (not run yet: 1)"
    capsys.readouterr()
    reproduce.main([*arguments, "--list"])
    states = [line[:7].strip() for line in capsys.readouterr().out.splitlines()[:4]]
    assert states == ["done", "begun", "begun", "to do"]

    moved = out.rename(tmp_path / "moved")
    arguments, stop_at = [str(path), "--output", str(moved)], 99
    assert reproduce.main(arguments) == 0
    assert trained == [(0.3, 0), (0.2, 0), (0.3, 1)]
    targets = [folder for folder in (moved / "runs" / "targets").iterdir() if not folder.name.startswith(".")]
    assert len(targets) == 2  # one for each seed
    content = read_json(moved / "small.json")
    runs = {(run["row"], run["seed"]): run for run in content["runs"]}
    summary = read_json(moved / runs["two", 0]["folder"] / "summary.json")
    assert runs["two", 0]["success"] == summary["test"]["success"]
    assert runs["two", 0]["environments"][0] == summary["processes"][0]["environment"]
    assert str(tmp_path) not in json.dumps([*runs.values(), content["sections"]])
    cells = lines_of((moved / "small.md").read_text())
    assert cells["one"][2] == "0, 1" and cells["one"][4].endswith("]") and cells["one"][7] == "97.9"
    attacks = {attack["name"]: attack["success"]["rate"] for attack in runs["again", 0]["attacks"]}
    assert "attacks" not in runs["one", 0] and list(attacks)[2:] == ["fgsm", "pgd-40", "pgd-40 margin", "fmn", "square"]
    assert cells["again"][3:7] == [f"{100 * attacks[name]:.2f}" for name in list(attacks)[2:6]]
    assert cells["again"][8] == f"{100 * runs['one', 0]['success']['rate']:.2f}"
    gap = runs["again", 0]["amortization_gap"]
    assert gap["difference"] == pytest.approx(attacks["pgd-40 margin"] - gap["second"]["rate"])
    assert cells["again"][9].startswith(f"{100 * gap['difference']:.1f} [")
    assert not list(moved.glob(".*partial*"))

    assert reproduce.main(arguments) == 0
    assert len(trained) == 3
    assert "4 of 4 runs are done." in capsys.readouterr().out


def test_a_black_box_that_is_done_is_in_the_table_and_in_the_picture(tmp_path: Path) -> None:
    shown = section(title="Queries", picture="queries", rows=[row(config="mnist_blackbox.yaml")])
    work = work_of(tmp_path, shown)
    cell = work.cells()[0]
    record = asked("one", 0, 900)
    (cell.folder / "evaluation").mkdir(parents=True)
    curve = {"name": "Square", "points": [{"queries_per_image": 10.0, "success": 0.5}]}
    evaluated = read_json(reference_run() / "evaluation" / "evaluation.json")
    (cell.folder / "evaluation" / "evaluation.json").write_text(json.dumps({**evaluated, "queries_curve": curve}))
    (cell.folder / "config.yaml").write_text(dump_config(located(cell.config)))
    kept = read_json(Path(__file__).parent / "release_0_1" / "finished" / "summary.json")
    box = {"name": "target", "digest": "abc", "answers": "labels", "query_budget": None, "attacker_images": 30_000}
    summary = {
        **kept,
        "processes": [{**kept["processes"][0], "commit": "abc", "environment": ENVIRONMENT}],
        "test": {**kept["test"], **{key: record[key] for key in ("clean_accuracy", "success", "success_8_bit")}},
        "seconds": record["seconds"],
        "black_box": {**box, "queries": record["queries"], "distilled": record["distilled"]},
    }
    (cell.folder / "summary.json").write_text(json.dumps(summary))
    assert reproduce.main([str(tmp_path / "small.yaml"), "--output", str(work.output)]) == 0
    text = (work.output / "small.md").read_text()
    assert lines_of(text)["one"][7:10] == ["99.49", "50,000", "50"]
    assert "(small-queries.png)" in text
    assert (work.output / "small-queries.png").read_bytes().startswith(b"\x89PNG")
    found = read_json(work.output / "small.json")["runs"][0]
    changed = {"section": "Queries", "queries_curve": curve, **{key: found[key] for key in ("folder", "config")}}
    changed |= {"command": "python -m advgan.train --config mnist_blackbox.yaml --set seed=0"}
    assert {key: found[key] for key in record} == {**record, **changed}


def test_a_setting_that_is_new_makes_no_run_anew(tmp_path: Path) -> None:
    work = work_of(tmp_path, section())
    cell = work.cells()[0]
    old = work.output / "runs" / "by-an-older-version" / "seed-0"
    old.mkdir(parents=True)
    settings = located(cell.config).model_dump(mode="json")
    del settings["oracle"]["retries"]  # as if it had come later
    (old / "config.yaml").write_text(yaml.safe_dump(settings))
    assert work.cells()[0].folder == old
    settings["loss"]["kappa"] = 4  # another default then
    (old / "config.yaml").write_text(yaml.safe_dump(settings))
    assert work.cells()[0].folder == cell.folder


def test_a_run_without_its_networks_is_made_again_where_an_evaluation_needs_them(tmp_path: Path) -> None:
    """As in a checkout, which has of each run its configuration and its summary."""
    shared = [section(), section(title="Attacked", attack_images=20, rows=[row(name="attacked")])]
    work = work_of(tmp_path, *shared)
    plain, attacked = work.cells()
    assert plain.folder == attacked.folder
    plain.folder.mkdir(parents=True)
    (plain.folder / "config.yaml").write_text(dump_config(located(plain.config)))
    (plain.folder / "summary.json").write_text("{}")
    plain, attacked = work.cells()
    assert plain.done and not attacked.done
    assert attacked.folder != plain.folder and "attacked-" in attacked.folder.as_posix()


def test_an_evaluation_by_other_steps_of_pgd_is_another(tmp_path: Path) -> None:
    attacked = section(title="Attacked", attack_images=20)
    cells = work_of(tmp_path, attacked, {**attacked, "title": "Longer", "pgd_steps": 100}).cells()
    requests = [cell.evaluation for cell in cells]
    assert [each.pgd_steps for each in requests if each is not None] == [40, 100]
    assert cells[0].folder == cells[1].folder and cells[0].work != cells[1].work
    for key, value in (("pgd_steps", 100), ("show", "accuracy")):
        with pytest.raises(ConfigurationError, match=rf"{key} = .*section 'First' needs attack_images for this"):
            load_table(written(tmp_path, section(**{key: value})))


def test_a_section_cannot_attack_more_images_than_there_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = work_of(tmp_path, section(attack_images=151, rows=[row(set=TINY)]))
    assert reproduce_experiment.reproduce(work) == 1
    assert "attack_images = 151: the data have 150 test images" in caplog.text
    assert not (work.output / "runs" / "targets").exists()


def test_tables_are_frozen_and_typed() -> None:
    table = load_table(find_table("results"))
    assert isinstance(table, Table)
    assert isinstance(table.sections[0].rows[0].configuration(0), Config)
    with pytest.raises(ValueError, match="frozen"):
        table.title = "other"  # type: ignore[misc]
