"""What a search accepts, and how it answers what it doesn't, before torch is imported."""

import subprocess
import sys

import pytest

import cifar_lightning
from cifar_lightning.commands import search
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError
from cifar_lightning.search.definition import read_search
from cifar_lightning.search.space import corners, overrides, read_space

LR = "optimizer.lr: {type: float, low: 1e-4, high: 0.1, log: true}"


def read(folder, text, *typed, **settings):
    path = folder / "mine.yaml"
    path.write_text(text)
    return read_search(str(path), settings, ["data=digits", *typed])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("optimizer.lr: {type: float, low: 1, high: 0.1}", "space: optimizer.lr: .*low <= high.* must hold"),
        ("optimizer.lr: {type: float, low: 0, high: 0.1, log: true}", "low > 0.* must hold for .log=True"),
        ("optimizer.lr: {type: float, low: 0.1, high: 1, log: true, step: 0.1}", "step.* not supported when .log"),
        ("optimizer.lr: {type: float, low: 0.1}", "space: optimizer.lr: {.*} is not one of {type: float, low: 1e-4"),
        ("optimizer.lr: {type: float, low: 0.1, high: 1, steps: 2}", "'steps': 2} is not one of {type: float"),
        ("optimizer.lr: {type: double, low: 0.1, high: 1}", "'double', .* is not one of {type: float"),
        ("optimizer.lr: {type: float, low: a, high: 1}", "'a', .* is not one of {type: float"),
        ("optimizer.lr: 0.1", "optimizer.lr: 0.1 is not one of {type: float"),
        ("data.batch_size: {type: int, low: 1.5, high: 3}", "low, high and step must be integers"),
        ("activation: {type: categorical, choices: relu}", "choices: relu: must be a list of different values"),
        ("activation: {type: categorical, choices: [relu, relu]}", "must be a list of different values"),
        ("activation: {type: categorical, choices: []}", "must contain one or more elements"),
        (
            f"{LR}\n  seed: {{type: int, low: 0, high: 9, when: {{modle: resnet}}}}",
            "when: modle: there is no categorical parameter above it of this name",
        ),
        (f"{LR}\n  ema_decay: {{type: float, low: 0.9, high: 0.99, when: {{optimizer.lr: 1}}}}", "no categorical"),
        (
            "model: {type: categorical, choices: [cnn2, lenet]}\n"
            "  seed: {type: int, low: 0, high: 9, when: {model: cnn3}}",
            "when: model is never cnn3; did you mean cnn2?",
        ),
        (
            "optimizer.lrr: {type: float, low: 0.1, high: 1}",
            "there is no key optimizer.lrr .*did you mean optimizer.lr?",
        ),
        ("activation: {type: categorical, choices: [relu, tanhh]}", "activation=tanhh: .*did you mean tanh?"),
        ("data.batch_size: {type: int, low: 0, high: 64}", "data.batch_size=0: must be an integer of at least 1"),
        ("data.val_size: {type: float, low: 0.1, high: 0.5}", "data.val_size can't be searched over"),
        ("test: {type: categorical, choices: [true, false]}", "test can't be searched over"),
    ],
)
def test_a_mistake_in_the_space_is_answered_in_one_line(tmp_path, space, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, f"space:\n  {space}\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "typed", "settings", "message"),
    [
        ("n_trial: 3", [], {}, "there is no key n_trial; did you mean n_trials?"),
        ("n_trials: 0", [], {}, "n_trials=0: must be an integer of at least 1"),
        ("", [], {"n_trials": "many"}, "n_trials=many: must be an integer"),
        ("", [], {"pruner": "medain"}, "pruner=medain: must be one of median, hyperband, none"),
        ("", [], {"study_name": "a/b"}, "study_name=a/b: must be letters, digits"),
        ("overrides: test=false", [], {}, "overrides: must be a list"),
        ("", ["test=true"], {}, "test=true: leave it out"),
        ("overrides: [test=true]", [], {}, "test=true: leave it out"),
        ("", ["data.val_size=0"], {}, "data.val_size=0: a search needs a validation split"),
        ("", ["optimizer.lr=1"], {}, "optimizer.lr=1: optimizer.lr is searched over"),
        ("", ["ckpt_path=last"], {}, "ckpt_path=last: leave it out"),
        ("", ["n_trial=5"], {}, "there is no key n_trial; did you mean n_trials?"),
        ("", ["optimzer.lr=1"], {}, "there is no key optimzer.lr .*did you mean optimizer.lr?"),
        ("space: [1", [], {}, "mine.yaml is not YAML"),
    ],
)
def test_a_mistake_in_the_settings_or_overrides_is_answered_in_one_line(tmp_path, text, typed, settings, message):
    space = "" if "space" in text else f"\nspace:\n  {LR}\n"
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text + space, *typed, **settings)
    assert "\n" not in str(caught.value)


def test_what_was_typed_takes_the_place_of_the_files_own_and_the_test_is_always_off(tmp_path):
    found = read(tmp_path, f"overrides: [model=lenet, test=false]\nspace:\n  {LR}\n", "model=cnn2", n_trials="7")
    assert found.n_trials == 7
    assert found.config.model.channels == [8, 16]
    assert found.config.test is False
    assert found.config.task_name == "search"
    assert found.study_name == "mine"


def test_every_search_of_the_project_is_valid():
    for name in choices("hparams_search"):
        assert read_search(name, {}, []).space


def test_corners_contain_every_end_of_every_parameter_and_respect_conditions():
    model = {"type": "categorical", "choices": ["a", "b", "c"]}
    space = read_space(
        {
            "m": model,
            "x": {"type": "float", "low": 0, "high": 1, "when": {"m": ["b", "c"]}},
            "n": {"type": "categorical", "choices": [1, 2], "when": {"m": "c"}},
            "y": {"type": "int", "low": 3, "high": 9, "when": {"n": 2, "m": ["a", "c"]}},
        }
    )
    points = list(corners(space))
    for parameter in space:
        assert {point[parameter.key] for point in points if parameter.key in point} == set(parameter.ends)
    for point in points:
        assert ("x" in point) == (point["m"] in "bc")
        assert ("n" in point) == (point["m"] == "c")
        assert ("y" in point) == (point.get("n") == 2)
    assert len(points) <= 8  # each is composed


def test_conditions_that_never_hold_together_are_noticed():
    m = {"type": "categorical", "choices": ["a", "b"]}
    n = {"type": "categorical", "choices": ["c", "d"], "when": {"m": "a"}}
    space = read_space({"m": m, "n": n, "x": {"type": "int", "low": 0, "high": 1, "when": {"m": "b", "n": "c"}}})
    with pytest.raises(UserError, match="x: when: these conditions never hold together"):
        list(corners(space))


def test_values_are_written_as_overrides_are():
    drawn = {"a": True, "b": None, "c": 1e-05, "d": [8, [1, 2]], "e": "classic/lenet", "f": "it's, so"}
    expected = ["a=true", "b=null", "c=1e-05", "d=[8,[1,2]]", "e=classic/lenet", r"f='it\'s, so'"]
    assert overrides(drawn) == expected


def test_mistakes_are_answered_without_importing_torch(tmp_path):
    (tmp_path / "bad.yaml").write_text("space:\n  optimizer.lrr: {type: float, low: 0.1, high: 1}\n")
    program = (
        "import sys\nfrom cifar_lightning.commands import search\n"
        "assert search.main(['hparams_search=bad.yaml']) == 1\n"
        "print(sorted({'torch', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("error: there is no key optimizer.lrr")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: hparams_search=NAME is missing. Choose from: architecture, demo, sgd\n"),
        (["hparams_search=demoo"], "error: hparams_search=demoo: there is no such choice; did you mean demo?\n"),
        (["hparams_search=nowhere.yaml"], "error: hparams_search=nowhere.yaml: there is no such file\n"),
        (["demo"], "error: demo: write key=value, e.g. hparams_search=demo\n"),
    ],
)
def test_a_mistake_at_the_command_is_one_line_and_exit_code_1(capsys, arguments, message):
    assert search.main(arguments) == 1
    assert capsys.readouterr() == ("", message)


def test_without_optuna_the_command_says_how_to_get_it_before_it_loads_anything(monkeypatch, capsys):
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    monkeypatch.delattr(cifar_lightning, "api", raising=False)
    monkeypatch.setitem(sys.modules, "cifar_lightning.api", None)  # to import it would be an error
    assert search.main(["hparams_search=demo"]) == 1
    assert capsys.readouterr().err == "error: a search needs Optuna: pip install 'cifar-lightning[search]'\n"
