"""``python -m advgan.evaluate``: its figures counted again from its files, kill and continue, and what it refuses."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from log_lines import logged
from processes import one_line_error

from advgan import evaluate
from advgan.attacks.art_adapter import art_classifier
from advgan.attacks.baselines import baselines
from advgan.config.loading import dump_config
from advgan.errors import AdvGANError
from advgan.evaluation import subject as evaluation_subject
from advgan.evaluation.subject import EvaluationRequest
from advgan.experiments import evaluate as evaluate_experiment
from advgan.experiments.evaluate import evaluate_run
from advgan.metrics import Rate
from advgan.records.evaluation import Evaluation
from advgan.reports.terminal import evaluation_results
from advgan.run_folder import latest_finished_run, load_run_config

keras = tf.keras
CHECKOUT = Path(__file__).parent.parent
COUNT = 200  # test images of the small run
OPTIMIZED = 20


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run that may be written into."""
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("evaluated") / "run"))


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, Any]:
    return evaluate_run(EvaluationRequest(run, optimized_images=OPTIMIZED), command="a test").as_json()


@pytest.fixture(scope="module")
def archive(run: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    assert record
    with np.load(run / "evaluation" / "adversarial.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def target(run: Path) -> Any:
    return keras.models.load_model(run / "target.keras")


def wilson(successes: int, n: int) -> dict[str, float]:
    """The interval as Wilson's formula gives it, in plain arithmetic."""
    z, p = 1.959963984540054, successes / n
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return {"low": (centre - half) / (1 + z**2 / n), "high": (centre + half) / (1 + z**2 / n)}


def same_rate(found: dict[str, Any], successes: int, n: int) -> None:
    assert (found["successes"], found["n"], found["rate"]) == (successes, n, successes / n)
    for end, value in wilson(successes, n).items():
        assert found[end] == pytest.approx(min(max(value, 0), 1), abs=1e-12)


def test_the_figures_are_those_counted_again_from_the_archive(
    record: dict[str, Any], archive: dict[str, np.ndarray], target: Any
) -> None:
    clean = target.predict(archive["x"], verbose=0).argmax(axis=1)
    answers = target.predict(archive["x_adv"], verbose=0).argmax(axis=1)
    labels = archive["y"]
    np.testing.assert_array_equal(archive["clean_predictions"], clean)
    np.testing.assert_array_equal(archive["predictions"], answers)
    right, wrong = clean == labels, answers != labels
    np.testing.assert_array_equal(archive["counted"], right)
    np.testing.assert_array_equal(archive["success"], right & wrong)
    same_rate(record["success"], int((right & wrong).sum()), int(right.sum()))
    same_rate(record["clean_accuracy"], int(right.sum()), COUNT)
    same_rate(record["accuracy_under_attack"], int((~wrong).sum()), COUNT)
    assert 0.2 < record["success"]["rate"] < 1
    for label in range(10):
        here = labels == label
        found = record["by_class"][label]
        assert found["class"] == label
        same_rate(found, int((right & wrong & here).sum()), int((right & here).sum()))
        for answer in range(10):
            given = answers == answer
            assert record["confusion_clean"][label][answer] == np.count_nonzero(here & (clean == answer))
            assert record["confusion_under_attack"][label][answer] == np.count_nonzero(here & given)
            assert record["source_by_answer"][label][answer] == np.count_nonzero(here & given & right)


def test_the_distances_are_those_measured_again_from_the_archive(
    record: dict[str, Any], archive: dict[str, np.ndarray]
) -> None:
    change = archive["x_adv"].astype(np.float64) - archive["x"]
    counted = change[archive["counted"]].reshape(-1, 784)
    found = record["distortion"]
    assert found["largest_linf"] == np.abs(change).max() <= record["epsilon"] + 1e-6
    assert found["mean_l2"] == pytest.approx(np.linalg.norm(counted, axis=1).mean(), rel=1e-12)
    assert found["mean_l0"] == (counted != 0).sum(axis=1).mean()
    decibels = -10 * np.log10(np.square(counted).mean(axis=1))
    assert found["mean_psnr"] == pytest.approx(decibels.mean(), rel=1e-5)
    assert 0 < found["mean_ssim"] < 1


def test_foolbox_and_art_find_the_same_accuracy_on_the_saved_images(
    record: dict[str, Any], archive: dict[str, np.ndarray], target: Any
) -> None:
    model = foolbox.TensorFlowModel(target, bounds=(0, 1))
    labels = tf.constant(archive["y"], tf.int64)
    for images, name in (("x", "clean_accuracy"), ("x_adv", "accuracy_under_attack")):
        found = foolbox.accuracy(model, tf.constant(archive[images]), labels)
        assert round(found * COUNT) == record[name]["successes"]
        assert found == np.float32(record[name]["rate"])
        answers = art_classifier(target).predict(archive[images]).argmax(axis=1)
        assert np.count_nonzero(answers == archive["y"]) == record[name]["successes"]


def test_saved_images_read_back_succeed_as_often_and_stay_within_epsilon(
    run: Path, record: dict[str, Any], archive: dict[str, np.ndarray]
) -> None:
    assert record["success_read_back"]["adversarial.npz"] == record["success"]
    assert record["success_read_back"]["png"] == record["success_8_bit"]
    assert record["png_largest_change_levels"] == 76
    (file,) = record["files"]["png"]
    sheet = tf.io.decode_png((run / "evaluation" / file).read_bytes()).numpy()
    assert sheet.shape == (5 * 28, 40 * 28, 1)
    for number in (0, 39, 40, 199):
        top, left = number // 40 * 28, number % 40 * 28
        image = sheet[top : top + 28, left : left + 28].astype(int)
        assert np.abs(image - np.rint(archive["x"][number] * 255)).max() <= 76
        assert np.abs(image - archive["x_adv"][number] * 255).max() <= 1.0


def test_the_record_states_what_was_evaluated_and_is_plain_json(run: Path, record: dict[str, Any]) -> None:
    assert json.loads((run / "evaluation" / "evaluation.json").read_text()) == record
    assert record["schema"] == 1
    assert record["data"]["images"] == record["data"]["of"] == COUNT
    assert record["data"]["all_test_images"] is True
    assert record["files"]["left_out"].keys() == {"mnist_challenge.npy"}
    assert not (run / "evaluation" / "mnist_challenge.npy").exists()  # it takes all 10,000 images


def test_the_evaluation_agrees_with_what_training_measured(run: Path, record: dict[str, Any]) -> None:
    trained = json.loads((run / "summary.json").read_text())["test"]
    for name in ("clean_accuracy", "accuracy_under_attack", "success", "success_8_bit"):
        assert record[name] == trained[name]


def test_fewer_images_are_marked_and_nothing_stale_stays(run: Path, tmp_path: Path) -> None:
    record = evaluate_run(EvaluationRequest(run, output=tmp_path / "few", images=50, optimized_images=1)).as_json()
    assert (record["data"]["images"], record["data"]["of"], record["data"]["all_test_images"]) == (50, COUNT, False)
    assert any(
        "the first 50 of 200 test images" in line
        for line in evaluation_results(Evaluation.model_validate(record), tmp_path)
    )
    assert record["clean_accuracy"]["n"] == 50


def test_a_killed_evaluation_goes_on_where_it_stopped(
    run: Path, archive: dict[str, np.ndarray], tmp_path: Path
) -> None:
    output, few = tmp_path / "killed", 60
    command = [sys.executable, "-m", "advgan.evaluate", "--run", str(run), "--output", str(output)]
    command += ["--images", str(few), "--optimized", "1"]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list(output.glob("stages/advgan-*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "evaluation.json").exists()
    (kept,) = output.glob("stages/advgan-*.npz")
    before = kept.stat().st_mtime_ns

    request = EvaluationRequest(run, output=output, images=few, optimized_images=1)
    with logged() as lines:
        again = evaluate_run(request).as_json()
    assert kept.stat().st_mtime_ns == before
    assert any(line.startswith("Found already") and "advgan" in line for line in lines)
    same_rate(again["success"], int(archive["success"][:few].sum()), int(archive["counted"][:few].sum()))
    kept.write_bytes(kept.read_bytes()[:1000])  # damaged: worked out again
    once_more = evaluate_run(request).as_json()
    for name in ("success", "success_8_bit", "confusion_under_attack", "distortion", "curve", "attacks", "worst_case"):
        assert once_more[name] == again[name]


# --- Other attacks, and success against epsilon --------------------------------------------------------------------


def test_foolbox_alone_gives_the_same_fgsm(record: dict[str, Any], archive: dict[str, np.ndarray], target: Any) -> None:
    model = foolbox.TensorFlowModel(target, bounds=(0, 1))
    labels = tf.constant(archive["y"], tf.int64)
    _, made, fooled = foolbox.attacks.FGSM()(model, tf.constant(archive["x"]), labels, epsilons=record["epsilon"])
    found = {attack["name"]: attack for attack in record["attacks"]}["fgsm"]
    same_rate(found["success"], int(fooled.numpy()[archive["counted"]].sum()), int(archive["counted"].sum()))
    assert found["largest_linf"] == pytest.approx(np.abs(made.numpy().astype(float) - archive["x"]).max(), abs=1e-7)


def test_the_attacks_rank_as_they_should_and_stay_within_epsilon(record: dict[str, Any]) -> None:
    attacks = {attack["name"]: attack for attack in record["attacks"]}
    assert list(attacks) == ["uniform-noise", "sign-noise", "fgsm", "pgd-40", "pgd-40 margin", "fmn"]
    assert [attacks[name]["images"] for name in attacks] == [COUNT] * 5 + [OPTIMIZED]
    rates = {name: attack["success"]["rate"] for name, attack in attacks.items()}
    assert max(rates["uniform-noise"], rates["sign-noise"]) < rates["fgsm"] < rates["pgd-40"] <= rates["pgd-40 margin"]
    gradients = {name: attack["gradients_per_image"] for name, attack in attacks.items()}
    assert list(gradients.values())[:4] == [0, 0, 1, 40] and gradients["fmn"] == 100
    left = attacks["pgd-40"]["accuracy_under_attack"]  # and what was wrong when clean is wrong under attack
    assert gradients["pgd-40 margin"] == pytest.approx(40 * (1 + left["rate"]))
    assert rates["fmn"] > 0.8
    for attack in attacks.values():
        assert 0.2 < attack["largest_linf"] <= record["epsilon"] + 1e-6
        assert attack["seconds_per_1000_images"] > 0
        assert attack["success"]["n"] == attack["advgan_success"]["n"]
    every = [record["success"], *(attack["success"] for attack in attacks.values() if attack["images"] == COUNT)]
    assert record["worst_case"]["n"] == record["success"]["n"]
    assert record["worst_case"]["successes"] >= max(rate["successes"] for rate in every)


def test_the_attacks_are_counted_again_from_what_their_stages_left(
    run: Path, record: dict[str, Any], archive: dict[str, np.ndarray]
) -> None:
    labels, counted = archive["y"], archive["counted"]
    advgan = archive["predictions"] != labels
    fooled = advgan.copy()
    for attack in record["attacks"]:
        name = attack["name"].replace(" ", "-")
        (stage,) = (run / "evaluation" / "stages").glob(f"{name}-{'[0-9a-f]' * 16}.npz")
        with np.load(stage) as kept:
            answers, linf, seconds = kept["predictions"], kept["linf"], float(kept["seconds"])
        n = len(answers)
        assert n == attack["images"]
        wrong = answers != labels[:n]
        same_rate(attack["success"], int((wrong & counted[:n]).sum()), int(counted[:n].sum()))
        same_rate(attack["advgan_success"], int((advgan & counted)[:n].sum()), int(counted[:n].sum()))
        same_rate(attack["accuracy_under_attack"], int((~wrong).sum()), n)
        assert attack["largest_linf"] == linf.max()
        assert attack["seconds_per_1000_images"] == pytest.approx(1000 * seconds / n)
        fooled[:n] |= wrong
    same_rate(record["worst_case"], int((fooled & counted).sum()), int(counted.sum()))
    assert int((fooled & counted).sum()) > int((advgan & counted).sum())


def test_all_attacks_together_fool_what_any_of_them_fools_in_whatever_order(
    run: Path, record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("state")))
    monkeypatch.setattr(
        evaluation_subject,
        "baselines",
        lambda *arguments: sorted(baselines(*arguments), key=lambda each: each.kind == "noise"),
    )
    reversed_record = evaluate_run(EvaluationRequest(again, optimized_images=OPTIMIZED), command="a test")
    assert [attack.name for attack in reversed_record.attacks][-1] == "sign-noise"
    assert reversed_record.worst_case == Rate(**record["worst_case"])


def test_the_curve_is_counted_again_from_the_archive(
    run: Path, record: dict[str, Any], archive: dict[str, np.ndarray], target: Any
) -> None:
    curve = {point["epsilon"]: point["success"] for point in record["curve"]}
    assert list(curve) == sorted(curve)
    assert len(curve) == 21
    assert curve[0.0]["successes"] == 0
    assert curve[record["epsilon"]] == record["success"]
    output = keras.models.load_model(run / "generator.keras").predict(archive["x"], verbose=0)
    for epsilon in (0.1, 0.5, 1.0):
        answers = target.predict(np.clip(archive["x"] + np.float32(epsilon) * output, 0, 1), verbose=0).argmax(axis=1)
        expected = int((archive["counted"] & (answers != archive["y"])).sum())
        assert abs(curve[epsilon]["successes"] - expected) <= 1  # a scaled float32 is not a float32 scaled
    before = -1.0
    for point in record["curve"]:
        assert point["falls"] == (point["success"]["rate"] < before)
        before = point["success"]["rate"]


def test_a_targeted_run_counts_other_images_and_leaves_fgsm_out(run: Path, tmp_path: Path, target: Any) -> None:
    """The untargeted generator, evaluated as if it had been trained for class 7: the counting is what is tested."""
    targeted = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "state"))
    config = load_run_config(targeted)
    attack = config.attack.model_copy(update={"goal": "targeted", "target_class": 7})
    (targeted / "config.yaml").write_text(dump_config(config.model_copy(update={"attack": attack})))
    record = evaluate_run(EvaluationRequest(targeted, images=60, optimized_images=2)).as_json()
    with np.load(targeted / "evaluation-first-60" / "adversarial.npz") as archive:
        arrays = dict(archive)
    clean, answers = (target.predict(arrays[name], verbose=0).argmax(axis=1) for name in ("x", "x_adv"))
    counted = (arrays["y"] != 7) & (clean != 7)
    np.testing.assert_array_equal(arrays["counted"], counted)
    same_rate(record["success"], int((counted & (answers == 7)).sum()), int(counted.sum()))
    assert 0 < record["success"]["n"] < 60
    attacks = {attack["name"]: attack for attack in record["attacks"]}
    assert list(attacks) == ["uniform-noise", "sign-noise", "pgd-40", "pgd-40 margin", "fmn"]
    assert attacks["pgd-40"]["success"]["rate"] > 0.2
    assert {found["guard"]: found["status"] for found in record["guards"]}[
        "iterative beats single step"
    ] == "not checked"
    assert record["curve"][0]["success"]["successes"] == 0
    assert record["threat_model"].startswith("targeted (class 7)")


# --- Refusals ----------------------------------------------------------------------------------------------------


refusal = functools.partial(one_line_error, evaluate.main)
"""What the command ends with on invalid input."""


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for words in ("examples:", "python -m advgan.evaluate --run checkpoints/mnist/0", "--transfer", "module:function"):
        assert words in shown


def test_a_missing_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a run" in refusal(capsys, "--run", str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("missing", ["summary.json", "generator.keras", "target.keras"])
def test_an_unfinished_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    unfinished = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    (unfinished / missing).unlink()
    message = refusal(capsys, "--run", str(unfinished))
    assert f"is not finished: it has no {missing}" in message
    assert "--resume" in message
    assert not (unfinished / "evaluation").exists()


@pytest.mark.parametrize("file", ["generator.keras", "target.keras", "summary.json"])
def test_a_truncated_file_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    damaged = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    (damaged / file).write_bytes((damaged / file).read_bytes()[:300])
    message = refusal(capsys, "--run", str(damaged))
    assert file in message
    assert not (damaged / "evaluation").exists()


def test_a_network_for_other_images_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("generator.keras", "target.keras"):
        wrong = shutil.copytree(run, tmp_path / file, ignore=shutil.ignore_patterns("evaluation"))
        keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Conv2D(1, 1)]).save(wrong / file)
        message = refusal(capsys, "--run", str(wrong))
        assert file in message
        assert "takes images of (32, 32, 1)" in message


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_written_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "file").touch()
    message = refusal(capsys, "--run", str(run), "--output", str(tmp_path / output))
    assert message.startswith("--output = ")
    assert "cannot be written" in message


@pytest.mark.parametrize("images", ["0", "-1", "some", "1.5", "201"])
def test_a_number_of_images_that_cannot_be_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], images: str
) -> None:
    assert refusal(capsys, "--run", str(run), "--images", images).startswith(
        "--images = " if images == "201" else f"argument --images: {images!r} should be a whole number from 1; "
    )


def test_an_evaluation_that_is_stopped_says_how_it_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_experiment, "evaluate_run", stopped)
    assert evaluate.main(["--run", str(run)]) == 130
    assert capsys.readouterr().err == "stopped; run the same command again to continue\n"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(evaluate_experiment, "evaluate_run", full)
    message = refusal(capsys, "--run", str(run))
    assert message.startswith(f"{tmp_path / 'x'}: No space left on device; run the same command again to continue")


def test_a_run_takes_no_settings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "--run", str(run), "--set", "seed=1").startswith("--set = 'seed=1': a run keeps")


def test_a_command_with_two_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--run", "a", "--config", "mnist.yaml"])
    assert stopped.value.code == 2
    assert "only one of --run RUN, --config FILE" in capsys.readouterr().err


def test_the_latest_finished_run_is_found_and_its_absence_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no finished run in checkpoints/mnist_targeted" in refusal(
        capsys, "--config", "mnist_targeted.yaml"
    )
    runs = tmp_path / "checkpoints" / "mnist"
    for number in ("0", "1", "2"):
        shutil.copytree(run, runs / number, ignore=shutil.ignore_patterns("evaluation", "state"))
    os.utime(runs / "1" / "summary.json", (2e9, 2e9))
    (runs / "2" / "summary.json").unlink()
    assert latest_finished_run(Path("checkpoints/mnist")) == Path("checkpoints/mnist/1")


def test_other_data_than_the_run_was_trained_on_are_refused(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    processes = json.loads((other / "processes.json").read_text())
    processes[0]["data_sha256"] = "0" * 64
    (other / "processes.json").write_text(json.dumps(processes))
    with pytest.raises(AdvGANError, match=r"mnist has changed since .* was trained on it"):
        evaluate_run(EvaluationRequest(other))
