"""A checkpoint alone gives the figures of its run's test stage, anywhere and as often as one likes."""

import csv
import json
import math
import subprocess
import sys

import pytest
import torch
from helpers.checkpoints import checkpoint_of, whole_config, write_checkpoint
from helpers.command import Outcome
from torch.nn.functional import cross_entropy

from cifar_lightning.checkpoints.load import load_classifier, load_data
from cifar_lightning.commands import evaluate, export, predict
from cifar_lightning.config.compose import compose
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.runs.train import run
from cifar_lightning.training.tta import views

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "optimizer=adam", "scheduler=none", "optimizer.lr=0.003"]
FIGURES = {"accuracy_per_class", "confidence", "confusion_matrix", "mistakes", "reliability"}


@pytest.fixture
def evaluated(tmp_path, monkeypatch, capsys):
    """`evaluated("ckpt_path=…")` is the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        return Outcome(evaluate.main(arguments), *capsys.readouterr())

    return call


def record(folder):
    return json.loads((folder / "evaluation.json").read_text())


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# With an average of the weights, the run's test and the checkpoint could easily mean different weights.
@pytest.fixture(scope="module", params=[[], ["ema_decay=0.8", "trainer.precision=bf16-mixed"]], ids=["plain", "ema"])
def trained(request, tmp_path_factory):
    """The folder of a run and its metrics."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        run(compose([*QUICK, "trainer.max_epochs=2", "logger=none", f"paths.output_dir={folder}", *request.param]), [])
    return folder, json.loads((folder / "metrics.json").read_text())


def test_the_figures_are_those_of_the_runs_test_stage(trained, evaluated):
    folder, metrics = trained
    outcome = evaluated(f"ckpt_path={folder}")
    assert outcome.code == 0, outcome.err
    out = folder / "checkpoints" / "best_test"
    for key in [key for key in metrics if key.startswith("test/")] + ["parameters", "precision", "data_checksum"]:
        assert record(out)[key] == metrics[key], key
    assert (out / "predictions.csv").read_text() == (folder / "predictions.csv").read_text()
    assert {path.stem for path in (out / "figures").glob("*.png")} == FIGURES
    assert f"{metrics['test/acc']:.2%}".replace("%", " %") in outcome.out
    assert record(out)["command"] == f"python -m cifar_lightning evaluate ckpt_path={folder}"
    assert load_runs([folder])[1] == []  # an evaluation is not taken for a run


def test_the_validation_part_is_the_runs_too(trained, evaluated, tmp_path):
    folder, metrics = trained
    assert evaluated(f"ckpt_path={folder / 'checkpoints' / 'best.ckpt'}", "split=val", "out=here").code == 0
    for key in ("val/acc", "val/loss"):
        assert record(tmp_path / "here")[key] == pytest.approx(metrics[key], rel=1e-6)
    assert not any(key.startswith("test/") for key in record(tmp_path / "here"))


@pytest.mark.parametrize("tta", ["flip", "flip_shift"])
def test_with_augmentation_logits_are_averaged_over_the_views(evaluated, tmp_path, tta):
    path = write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data.val_size=50"))
    assert evaluated(f"ckpt_path={path}", "split=val", f"tta={tta}").code == 0
    out = tmp_path / f"a_val_{tta}"
    assert record(out)["tta"] == tta

    classifier, part = load_classifier(path), load_data(whole_config("data.val_size=50")).val
    with torch.no_grad():
        seen = views(classifier.normalized(part.images), tta)
        logits = sum(weight * classifier.network(view) for weight, view in seen)
    assert record(out)["val/loss"] == pytest.approx(cross_entropy(logits, part.labels).item(), rel=1e-5)
    written = rows(out / "predictions.csv")
    assert [row["prediction"] for row in written] == [str(i) for i in logits.argmax(1).tolist()]


def test_the_data_may_lie_elsewhere_now(evaluated, cifar_folder, tmp_path):
    config = whole_config("data=cifar10", "data.val_size=60", "data.verify=false", "data.root=/nowhere")
    path = write_checkpoint(tmp_path / "a.ckpt", config=config)
    outcome = evaluated(f"ckpt_path={path}", f"data.root={cifar_folder}", "out=here")
    assert outcome.code == 0, outcome.err
    written = rows(tmp_path / "here" / "predictions.csv")
    assert len(written) == 100
    right = [row["label"] == row["prediction"] for row in written]
    assert sum(right) / 100 == pytest.approx(record(tmp_path / "here")["test/acc"])


def test_data_that_are_not_there_are_asked_for(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_lightning.checkpoints.load.ImageDataModule.setup", refuse)
    path = write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data=cifar10", "data.root=gone"))
    outcome = evaluated(f"ckpt_path={path}")
    assert outcome == Outcome(1, "", "error: no data here\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def refuse(self, stage=None):
    from cifar_lightning.errors import UserError

    raise UserError("no data here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ckpt_path=FILE is missing"),
        (["ckpt=a.ckpt"], "there is no key ckpt; did you mean ckpt_path?"),
        (["ckpt_path=a.ckpt", "splt=val"], "did you mean split?"),
        (["ckpt_path=a.ckpt", "split=tset"], "did you mean test?"),
        (["ckpt_path=a.ckpt", "tta=flips"], "did you mean flip?"),
        (["ckpt_path=a.ckpt", "split=val", "split=test"], "given twice"),
        (["ckpt_path=a.ckpt", "out="], "is empty"),
        (["ckpt_path=b.ckpt"], "ckpt_path=b.ckpt: there is no such file"),
        (["ckpt_path=."], "no checkpoints/best.ckpt"),
        (["ckpt_path=text.ckpt"], "text.ckpt can't be read as a checkpoint"),
        (["ckpt_path=foreign.ckpt"], "foreign.ckpt is not a checkpoint of cifar_lightning"),
        (["ckpt_path=doctored.ckpt"], "'os.system'"),
        (["ckpt_path=a.ckpt", "split=val"], "no validation split"),
        (["ckpt_path=a.ckpt", "out=text.ckpt"], "is a file"),
        (["ckpt_path=a.ckpt", "out=text.ckpt/out"], "can't be written"),
        (["ckpt_path=a.ckpt", "precision=32-ture"], "precision=32-ture"),
        pytest.param(
            ["ckpt_path=a.ckpt", "accelerator=gpu"],
            "finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(evaluated, tmp_path, arguments, message):
    write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data.val_size=0"))
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    doctored = checkpoint_of()
    doctored["cifar_lightning"]["config"]["model"]["activation"] = {"_target_": "os.system", "command": "touch x"}
    torch.save(doctored, tmp_path / "doctored.ckpt")
    before = set(tmp_path.iterdir())
    outcome = evaluated(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert set(tmp_path.iterdir()) == before


def doctored_names(*names):
    return lambda content: content["cifar_lightning"].update(class_names=list(names))


def fill_weights(value):
    return lambda content: [tensor.fill_(value) for tensor in content["state_dict"].values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fill_weights(math.nan), "the network's logits are NaN or infinite for "),
        (fill_weights(3e38), "the network's logits are NaN or infinite for "),
        (doctored_names("a", "b"), "the network has 10 outputs, but there are 2 class names"),
        (doctored_names(*"abcdefghijklm"), "the network has 10 outputs, but there are 13 class names"),
        (doctored_names(*"abcdefghia"), "the class names is missing or damaged"),
        (doctored_names(*"abcdefghi", "\x1b[31m"), "the class names is missing or damaged"),
        (doctored_names(*"abcdefghi", "a\nb"), "the class names is missing or damaged"),
        (doctored_names(), "the class names is missing or damaged"),
    ],
)
@pytest.mark.parametrize(
    "command", [(evaluate, "split=val"), (predict, "index=val:3"), (export, "format=torch_export")], ids=lambda c: c[1]
)
def test_weights_and_names_that_can_not_be_used_are_one_line(tmp_path, monkeypatch, capsys, command, change, message):
    monkeypatch.chdir(tmp_path)
    content = checkpoint_of(whole_config("data.val_size=10"))
    change(content)
    torch.save(content, "a.ckpt")
    module, argument = command
    assert module.main(["ckpt_path=a.ckpt", argument]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error or "has 10 classes, the checkpoint" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_data_with_other_classes_than_the_checkpoints_are_refused(evaluated, tmp_path):
    config = whole_config("data.val_size=10", "+model.num_classes=3")
    write_checkpoint(tmp_path / "a.ckpt", config=config, class_names=("a", "b", "c"))
    outcome = evaluated("ckpt_path=a.ckpt", "split=val")
    assert (outcome.code, outcome.err) == (1, "error: digits has 10 classes, the checkpoint 3\n")


def test_names_that_look_like_formulas_are_drawn_as_they_are(evaluated, tmp_path):
    names = ("$\\frac", "$x", *"01234567")
    write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data.val_size=20"), class_names=names)
    outcome = evaluated("ckpt_path=a.ckpt", "split=val")
    assert outcome.code == 0, outcome.err
    assert "$\\frac" in outcome.out
    assert {path.stem for path in (tmp_path / "a_val" / "figures").glob("*.png")} == FIGURES


@pytest.mark.parametrize("module", [evaluate, predict, export])
def test_help_and_mistakes_do_not_wait_for_torch(tmp_path, module):
    name = module.__name__
    command = f"cifar_lightning {module.COMMAND.name}"
    program = (
        f"import sys\nfrom {name} import main\n"
        "codes = [main(['--help']), main(['ckpt_path=gone.ckpt'])]\n"
        "print(codes, 'torch' in sys.modules, 'lightning' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 1] False False False"
    assert f"python -m {command} ckpt_path=best.ckpt" in done.stdout
    assert len(done.stdout.splitlines()) < 50
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert all(key in done.stdout for key in module.COMMAND.keys)
