"""Settings: what is accepted, what is refused and in which words, and which configuration a name finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

import advgan.config
from advgan.config.loading import dump_config, find_config, load_config, parse_config
from advgan.config.settings import Config
from advgan.errors import AdvGANError, ConfigurationError
from advgan.run_folder import load_run_config

CHECKOUT = Path(__file__).parent.parent
SHIPPED = sorted((CHECKOUT / "configs").glob("*.yaml"))

UNUSUAL_SETTINGS: dict[str, Any] = {
    "name": "unusual-2.run",
    "seed": 7,
    "data": {"dataset": "folder/images é.npz", "validation_images": 10, "training_images": 20, "test_images": 30},
    "target": {
        "architecture": "model_b",
        "learning_rate": "1e-7",
        "weight_decay": "5e-4",
        "batch_normalization": True,
        "seed": 3,
    },
    "oracle": {"black_box": "target", "answers": "labels", "query_budget": 5000, "timeout": "1/2"},
    "distillation": {"architecture": "madrylab", "rounds": 2, "clean_answers": "labels", "replay": False},
    "attack": {"goal": "targeted", "target_class": 0, "epsilon": "8/255", "output": "clipped"},
    "loss": {"adversarial": "f2", "kappa": 0.5, "alpha": "1/3", "beta": 0, "c": "1e10"},
    "generator": {
        "widths": [4, 6],
        "normalization": "group",
        "groups": 2,
        "upsampling": "resize",
        "schedule": "linear",
    },
    "discriminator": {"widths": [5], "normalization": "none", "steps": 2, "noise": "1/255", "beta_1": 0.5},
    "training": {"epochs": 1, "stop_at_success": "0.99", "compute_dtype": "bfloat16", "deterministic": True},
    "output": {"directory": "runs", "checkpoint_every": 1, "keep_checkpoints": 1, "log_every": 1},
}


def write(folder: Path, text: str | bytes, name: str = "some.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes = "seed: 0", overrides: Sequence[str] = ()) -> str:
    """The one line with which a configuration is refused."""
    with pytest.raises(ConfigurationError) as refused:
        load_config(write(folder, text), overrides)
    message = str(refused.value)
    assert message.splitlines() == [message]
    return message


def groups_and_fields(group: BaseModel, prefix: str = "") -> Iterator[tuple[BaseModel, str, str]]:
    for field in type(group).model_fields:
        yield group, field, prefix + field
        if isinstance(value := getattr(group, field), BaseModel):
            yield from groups_and_fields(value, f"{prefix}{field}.")


def keys_of(content: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for key, value in content.items():
        keys |= {prefix + key} | (keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) else set())
    return keys


# --- What ships --------------------------------------------------------------------------------------------------


def test_mnist_yaml_writes_out_every_setting_with_its_default() -> None:
    path = CHECKOUT / "configs" / "mnist.yaml"
    assert load_config(path) == Config()
    written = keys_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert written == {key for _, _, key in groups_and_fields(Config())}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_configuration_parses_and_says_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load_config(path).name == path.stem
    header = text[: text.index("\nname:")]
    assert all(line.startswith("#") for line in header.splitlines() if line)
    assert f"--config {path.name}" in header


# --- What is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, UNUSUAL_SETTINGS], ids=["defaults", "unusual"])
def test_a_dumped_configuration_is_read_back_equal(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_the_unusual_settings_differ_from_the_defaults_in_every_group() -> None:
    changed = parse_config(UNUSUAL_SETTINGS).model_dump(exclude_defaults=True)
    assert changed.keys() == Config.model_fields.keys()


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("8/255", 8 / 255),
        ("8 / 255", 8 / 255),
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("1", 1.0),
        ("'0.25'", 0.25),
    ],
)
def test_numbers_may_be_fractions_and_in_scientific_notation(tmp_path: Path, written: str, number: float) -> None:
    in_the_file = load_config(write(tmp_path, f"attack: {{epsilon: {written}}}"))
    by_override = load_config(write(tmp_path, "seed: 0"), [f"attack.epsilon={written}"])
    assert in_the_file.attack.epsilon == by_override.attack.epsilon == number
    assert isinstance(in_the_file.attack.epsilon, float)


@pytest.mark.parametrize(
    ("written", "value"), [("on", True), ("off", False), ("true", True), ("no", False), ("auto", "auto")]
)
def test_switches_may_be_on_and_off(tmp_path: Path, written: str, value: bool | str) -> None:
    config = load_config(write(tmp_path, f"training: {{xla: {written}}}"))
    assert config.training.xla == value
    assert load_config(write(tmp_path, "seed: 0"), [f"training.xla={written}"]).training.xla == value


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\n\n"])
def test_an_empty_file_means_the_defaults_under_its_own_name(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text, "mine.yaml")) == Config(name="mine")


def test_the_name_in_the_file_wins_over_the_file_name(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "name: written", "mine.yaml")).name == "written"
    assert load_config(write(tmp_path, "name: written", "mine.yaml"), ["name=set"]).name == "set"


def test_overrides_change_only_their_key_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "name: mnist\nattack: {output: clipped, epsilon: 0.1}")
    config = load_config(path, ["attack.epsilon=0.2", "seed=4", "generator.widths=[4, 8]", "attack.epsilon=0.25"])
    expected = {"attack": {"output": "clipped", "epsilon": 0.25}, "seed": 4, "generator": {"widths": [4, 8]}}
    assert config == parse_config(expected)
    assert config.generator.widths == (4, 8)


def test_an_override_may_fill_a_section_that_is_empty_in_the_file(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "attack:\n"), ["attack.epsilon=0.2"]).attack.epsilon == 0.2


def test_the_target_is_seeded_by_the_run_unless_it_has_a_seed_of_its_own() -> None:
    assert parse_config({"seed": 5}).target_seed == 5
    assert parse_config({"seed": 5, "target": {"seed": 0}}).target_seed == 0


@pytest.mark.parametrize(
    ("budget", "queries", "allowance"),
    [
        (None, None, 5000),
        (205, None, 20),
        (49_999, None, 4999),
        (60_000, None, 5000),
        (9, None, 0),
        (60_000, 0, 0),
        (100, 99, 99),
        (None, 7, 7),
    ],
)
def test_a_tenth_of_the_budget_and_5000_at_most_is_for_validation(
    budget: int | None, queries: int | None, allowance: int
) -> None:
    config = parse_config({"oracle": {"black_box": "target", "query_budget": budget, "validation_queries": queries}})
    assert config.oracle.validation_allowance == allowance


def test_the_goal_follows_from_the_target_class() -> None:
    assert str(Config().attack.objective) == "untargeted (any wrong class)"
    targeted = parse_config({"attack": {"goal": "targeted", "target_class": 0}})
    assert str(targeted.attack.objective) == "targeted (class 0)"


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("attack.epsilonn=0.2", "attack.epsilon"),
        ("attack.eps=0.2", "attack.epsilon"),
        ("epsilon=0.2", "attack.epsilon"),
        ("attack.kappa=1", "loss.kappa"),
        ("alpha=1", "loss.alpha"),
        ("training.epoch=1", "training.epochs"),
        ("generator.learningrate=1", "generator.learning_rate"),
        ("discriminator.residual_blocks=1", "generator.residual_blocks"),
        ("sed=1", "seed"),
        ("output.dir=x", "output.directory"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path, override: str, nearest: str) -> None:
    key, _, value = override.partition("=")
    *sections, last = key.split(".")
    in_the_file = f"{sections[0]}: {{{last}: {value}}}" if sections else f"{last}: {value}"
    for message in (refusal(tmp_path, in_the_file), refusal(tmp_path, overrides=[override])):
        assert message == f"{key} = {yaml.safe_load(value)!r}: unknown key; did you mean {nearest}?"


def test_an_unknown_section_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, "atack: {epsilon: 0.2}")
    assert message.startswith("atack = ") and message.endswith("unknown key; did you mean attack?")


def test_a_key_that_resembles_none_is_refused_with_all_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, "qqq: 1")
    assert message.startswith("qqq = 1: unknown key")
    assert all(section in message for section in Config.model_fields)


def test_an_unknown_key_is_reported_before_other_problems(tmp_path: Path) -> None:
    message = refusal(tmp_path, "attack: {epsilon: 7, goul: targeted}")
    assert message.startswith("attack.goul = 'targeted': unknown key; did you mean attack.goal?")


@pytest.mark.parametrize(
    ("override", "value", "named"),
    [
        # out of range: both ends are named, not only the one that was crossed
        ("attack.epsilon=0", "0", ["> 0", "<= 1"]),
        ("attack.epsilon=0/255", "'0/255'", ["> 0", "<= 1"]),
        ("attack.epsilon=-0.1", "-0.1", ["> 0", "<= 1"]),
        ("attack.epsilon=1.01", "1.01", ["> 0", "<= 1"]),
        ("attack.epsilon=8", "8", ["for 8 of 255 levels write 8/255", "> 0", "<= 1"]),
        ("attack.epsilon=256/255", "'256/255'", ["> 0", "<= 1"]),
        ("attack.epsilon=.nan", "nan", ["finite", "> 0", "<= 1"]),
        ("attack.epsilon=.inf", "inf", ["> 0", "<= 1"]),
        ("loss.kappa=-1", "-1", [">= 0"]),
        ("loss.c=.inf", "inf", ["finite", ">= 0"]),
        ("generator.learning_rate=0", "0", ["> 0", "<= 1"]),
        ("discriminator.beta_1=1", "1", [">= 0", "< 1"]),
        ("training.stop_at_success=99", "99", ["> 0", "<= 1"]),
        ("training.epochs=0", "0", [">= 1"]),
        ("seed=-1", "-1", [">= 0"]),
        # wrong type
        ("attack.epsilon=large", "'large'", ["a number", "8/255"]),
        ("attack.epsilon=1/0", "'1/0'", ["a number", "8/255"]),
        ("attack.epsilon=true", "True", ["a number", "8/255"]),
        ("loss.kappa=off", "False", ["a number", "8/255"]),
        ("attack.epsilon=[0.1, 0.2]", "[0.1, 0.2]", ["number"]),
        ("attack.epsilon=null", "None", ["number"]),
        ("training.epochs=true", "True", ["integer", ">= 1"]),
        ("training.epochs=2.5", "2.5", ["integer", ">= 1"]),
        ("training.epochs=two", "'two'", ["integer", ">= 1"]),
        ("data.test_images=many", "'many'", ["integer", ">= 1"]),
        ("output.directory=5", "5", ["should be text; put it in quotes"]),
        ("name=2024", "2024", ["should be text; put it in quotes"]),
        # not among the choices
        ("training.compute_dtype=float16", "'float16'", ["'float32'", "'bfloat16'"]),
        ("attack.goal=random", "'random'", ["'untargeted'", "'targeted'"]),
        (
            "generator.normalization=spectral",
            "'spectral'",
            ["'instance'", "'batch'", "'layer'", "'group'", "'none'"],
        ),
        (
            "target.architecture=resnet",
            "'resnet'",
            ["lenet", "model_a", "model_b", "model_c", "madrylab", "did you mean resnet32?"],
        ),
        # values that cannot be used as a folder
        ("name=a/b", "'a/b'", []),
        ("name=..", "'..'", []),
        ("name=''", "''", []),
        ("name='-x'", "'-x'", []),
        ("name='a b'", "'a b'", []),
        ("name=targets", "'targets'", ["another name"]),
        ("data.dataset=''", "''", []),
        ("output.directory=''", "''", []),
    ],
)
def test_an_impossible_value_is_refused_with_key_value_and_what_is_allowed(
    tmp_path: Path, override: str, value: str, named: list[str]
) -> None:
    message = refusal(tmp_path, overrides=[override])
    given, _, problem = message.partition(": ")
    assert given == f"{override.partition('=')[0]} = {value}"
    assert problem
    for words in named:
        assert words in problem


@pytest.mark.parametrize("widths", ["8", "[]", "[8, 0]", "[8, 1.5]", "[8, true]", "[1, 1, 1, 1, 1, 1, 1]", "'8, 16'"])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_widths_are_one_to_six_positive_integers(tmp_path: Path, network: str, widths: str) -> None:
    assert refusal(tmp_path, f"{network}: {{widths: {widths}}}").startswith(f"{network}.widths")


def test_a_section_that_is_no_section_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "attack: 3").startswith("attack = 3: ")
    assert refusal(tmp_path, "attack: [epsilon, 0.3]").startswith("attack = ['epsilon', 0.3]: ")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["attack.goal=targeted"], ["attack.target_class = None: ", "targeted", "0 or above"]),
        (["attack.goal=targeted", "attack.target_class=-1"], ["attack.target_class = -1: ", "index from 0"]),
        (["attack.goal=targeted", "attack.target_class=cat"], ["attack.target_class = 'cat': ", "index from 0"]),
        (["attack.target_class=3"], ["attack.target_class = 3: ", "attack.goal: targeted"]),
        (["loss.adversarial=f2"], ["loss.kappa = 5.0: ", "f2", "0 <= kappa < 1"]),
        (["loss.adversarial=f2", "loss.kappa=1"], ["loss.kappa = 1.0: ", "f2", "0 <= kappa < 1"]),
        (["training.xla=on", "training.deterministic=on"], ["training.xla = 'on': ", "training.deterministic"]),
        (
            ["attack.goal=targeted", "attack.target_class=1", "loss.temperature=4"],
            ["loss.temperature = 4.0: ", "untargeted"],
        ),
        (
            ["generator.normalization=group", "generator.groups=3"],
            ["generator.groups = 3", "divide", "[8, 16, 32]"],
        ),
        (
            ["discriminator.normalization=group", "discriminator.widths=[8, 10]"],
            ["discriminator.groups = 4", "divide", "[8, 10]"],
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    message = refusal(tmp_path, overrides=overrides)
    assert message.startswith(expected[0])
    for words in expected[1:]:
        assert words in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.adversarial=f2", "loss.kappa=0.99"],
        ["training.xla=on", "training.deterministic=auto"],
        ["training.xla=off", "training.deterministic=on"],
        ["training.xla=on", "training.deterministic=off"],
        ["generator.normalization=group", "generator.groups=8"],
        ["generator.groups=3"],  # counts for group normalization only
        ["attack.goal=targeted", "attack.target_class=0"],
        ["attack.epsilon=1"],
    ],
    ids=" ".join,
)
def test_settings_just_inside_the_allowed_range_are_accepted(tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(write(tmp_path, "name: mnist"), overrides)
    assert config != Config()


@pytest.mark.parametrize("override", ["attack.epsilon", "=0.3", "=", "", " =1"])
def test_a_malformed_override_is_refused_with_an_example(tmp_path: Path, override: str) -> None:
    message = refusal(tmp_path, overrides=[override])
    assert message == f"--set = {override!r}: should be section.key=value, such as attack.epsilon=0.2"


def test_an_override_below_a_setting_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "seed: 0", ["seed.low=1"])
    assert message == "--set = 'seed.low=1': seed is a setting, not a section"


@pytest.mark.parametrize("value", ["[0.1", "'", "*nothing", "!!python/object/apply:os.getcwd []"])
def test_an_override_that_is_not_yaml_is_refused(tmp_path: Path, value: str) -> None:
    override = f"attack.epsilon={value}"
    assert refusal(tmp_path, overrides=[override]) == f"--set = {override!r}: the value is not YAML"


@pytest.mark.parametrize(
    "text",
    [
        "attack: [",
        "attack:\n\tepsilon: 0.3\n",
        "attack:\n  epsilon: 0.3\n epsilon: 0.2\n",
        "seed: !!python/object/apply:os.getcwd []",
        "seed: 0\n---\nseed: 1\n",
        b"seed: \x00",
    ],
    ids=["unclosed", "tab", "indentation", "python object", "two documents", "NUL"],
)
def test_a_file_that_is_not_yaml_is_refused_with_its_name(tmp_path: Path, text: str | bytes) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"--config = {str(tmp_path / 'some.yaml')!r}: is not YAML: ")
    assert "line " in message or "position " in message


def test_a_key_that_is_there_twice_is_refused_with_its_file_and_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "training:\n  epochs: 1\n  epochs: 2\n")
    assert message == f"epochs = '{tmp_path / 'some.yaml'}, line 3': the key is there twice; remove one"


def test_keys_may_be_merged_from_an_anchor(tmp_path: Path) -> None:
    text = "generator: &both {learning_rate: 2e-3, widths: [4, 8]}\ndiscriminator: {<<: *both, widths: [8, 16]}\n"
    config = load_config(write(tmp_path, text))
    assert (config.discriminator.learning_rate, config.discriminator.widths) == (2e-3, (8, 16))
    assert (config.generator.learning_rate, config.generator.widths) == (2e-3, (4, 8))


@pytest.mark.parametrize("text", ["- seed\n- 0\n", "seed", "42"])
def test_a_file_without_keys_at_its_top_is_refused(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"--config = {str(tmp_path / 'some.yaml')!r}: ")
    assert message.endswith("should hold keys and values, such as seed: 0")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "some.yaml': cannot be read: " in refusal(tmp_path, b"\xff\xfe\x00\x01")


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_config(tmp_path / "absent.yaml")
    message = str(refused.value)
    assert "absent.yaml': cannot be read: " in message and "\n" not in message


def test_refusals_carry_key_and_value_and_are_meant_for_the_user() -> None:
    with pytest.raises(AdvGANError) as refused:
        parse_config({"attack": {"epsilon": 2}})
    assert isinstance(refused.value, ConfigurationError)
    assert (refused.value.key, refused.value.value) == ("attack.epsilon", 2)


# --- Settings do not change --------------------------------------------------------------------------------------


def test_no_setting_can_be_changed_added_or_removed() -> None:
    config = Config()
    before = dump_config(config)
    for group, field, _ in groups_and_fields(config):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(group, field, getattr(group, field))
        with pytest.raises(ValidationError, match="frozen"):
            delattr(group, field)
    with pytest.raises(ValidationError):
        config.attack.new = 1  # type: ignore[attr-defined]
    assert isinstance(config.generator.widths, tuple)
    assert dump_config(config) == before


def test_parsing_leaves_what_it_was_given_alone() -> None:
    given = {"attack": {"epsilon": "8/255"}, "generator": {"widths": [4, 8]}}
    parse_config(given)
    assert given == {"attack": {"epsilon": "8/255"}, "generator": {"widths": [4, 8]}}


# --- Where a configuration is found ------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(name: str) -> Path:
    return find_config(name).resolve()


@pytest.mark.parametrize("name", ["mnist.yaml", "mnist"])
def test_a_path_goes_before_configs_here_and_these_before_the_packaged_ones(elsewhere: Path, name: str) -> None:
    packaged = found(name)
    assert packaged.name == "mnist.yaml"
    assert elsewhere not in packaged.parents
    (elsewhere / "configs").mkdir()
    here = write(elsewhere / "configs", "seed: 1", "mnist.yaml")
    assert found(name) == here.resolve()
    path = write(elsewhere, "seed: 2", "mnist.yaml")
    assert found(name) == path.resolve()
    path.unlink()
    here.unlink()
    assert found(name) == packaged


def test_a_path_may_be_absolute_or_relative_and_in_any_folder(elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    path = write(elsewhere / "mine", "seed: 1", "other.yml").resolve()
    assert found("mine/other.yml") == found("./mine/other.yml") == found(str(path)) == path


def test_a_folder_is_not_taken_for_a_configuration(elsewhere: Path) -> None:
    (elsewhere / "mnist.yaml").mkdir()
    assert elsewhere not in found("mnist.yaml").parents


def test_the_configurations_inside_the_package_go_before_those_beside_it(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a wheel they are in advgan/configs; in a checkout beside advgan."""
    package = elsewhere / "site" / "advgan"
    for folder in (package / "configs", package.parent / "configs"):
        folder.mkdir(parents=True)
        write(folder, "seed: 1", "mnist.yaml")
    monkeypatch.setattr(advgan.config.loading, "__file__", str(package / "config" / "loading.py"))
    assert found("mnist.yaml") == (package / "configs" / "mnist.yaml").resolve()
    (package / "configs" / "mnist.yaml").unlink()
    assert found("mnist.yaml") == (package.parent / "configs" / "mnist.yaml").resolve()


@pytest.mark.usefixtures("elsewhere")
def test_a_configuration_that_is_nowhere_is_refused_with_those_that_ship() -> None:
    with pytest.raises(ConfigurationError) as refused:
        find_config("mnst.yaml")
    message = str(refused.value)
    assert message.splitlines() == [message]
    assert message.startswith("--config = 'mnst.yaml': no such file")
    assert all(path.name in message for path in SHIPPED)
    assert message.endswith("did you mean mnist.yaml?")


def test_a_value_that_was_renamed_works_with_a_warning_and_without_one_in_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("distillation: {clean_answers: asked}\n")
    assert load_run_config(tmp_path).distillation.clean_answers == "black_box"
    assert not caplog.messages
    assert load_config(path).distillation.clean_answers == "black_box"
    assert caplog.messages == [
        "distillation.clean_answers: asked is now black_box; from advgan 0.3 on the old name is an error"
    ]
