"""`compare`, as a person types it: what its sides may be, what it says, what it refuses, and what it writes."""

import csv
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.answers import NAMES, answers_of, labels_of, write_answers, write_run, write_sweep
from PIL import Image
from scipy import stats

from cifar_lightning import api
from cifar_lightning.reporting.files import read_csv

N = 600


def networks(share: float, count: int = 3, *, n: int = N, start: int = 0) -> list[np.ndarray]:
    """Made-up networks that are right on about this share of the images."""
    return [np.random.default_rng(start + i).random(n) < share for i in range(count)]


@pytest.fixture
def sweep(command):
    """Three seeds each of three activations, of which the third is far behind."""
    shares = {"relu": networks(0.8), "tanh": networks(0.79, start=10), "elu": networks(0.5, start=20)}
    return write_sweep(command.folder / "logs" / "sweep", shares)


def rows_of(text: str, *words: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if all(word in line for word in words)]


def test_two_settings_of_a_sweep_get_a_difference_and_a_verdict(command, sweep):
    outcome = command("compare", "logs/sweep:activation=relu", "logs/sweep:activation=elu")
    assert (outcome.code, outcome.err) == (0, "")
    a, b = ([100 * one.mean() for one in networks(share, start=start)] for share, start in ((0.8, 0), (0.5, 20)))
    apart = statistics.fmean(a) - statistics.fmean(b)
    (side,) = rows_of(outcome.out, "activation=relu", "1, 2, 3", "±")
    assert side == f"activation=relu 3 1, 2, 3 {statistics.fmean(a):.2f} ± {statistics.stdev(a):.2f}"
    (difference,) = rows_of(outcome.out, "activation=relu - activation=elu")
    assert difference.split()[3] == f"{apart:+.2f}"
    verdict = f"activation=relu is better than activation=elu by {apart:.2f} points (95 % "
    assert verdict in outcome.out
    assert "; n = 3 + 3 seeds, p " in outcome.out
    assert "missing seeds" not in outcome.out


def test_what_is_not_decided_is_not_ranked_and_the_command_for_more_seeds_is_given(command, sweep):
    outcome = command("compare", "logs/sweep", "relu", "tanh")
    assert outcome.code == 0
    assert "not decided between" in outcome.out
    assert "is better" not in outcome.out
    comparison = api.compare("logs/sweep:relu", "logs/sweep:tanh")
    needed = comparison.differences[0].seeds_to_decide()
    if needed is None:
        assert "not even 1,000 seeds" in outcome.out
    else:
        assert f"about {needed - 3} more seeds each would decide a difference of this size" in outcome.out
        words = "-m activation=tanh model=cnn2 hydra.sweep.dir=logs/sweep"
        assert f"  python -m cifar_lightning {words} 'seed=range(4,{needed + 1})'" in outcome.out


def test_the_missing_seeds_are_first_those_of_the_other_side(command):
    write_run(Path("logs/a"), networks(0.8)[0], "activation=relu", seed=7)
    for seed in (1, 7, 9):
        write_run(Path(f"logs/b{seed}"), networks(0.8, start=seed)[0], "activation=tanh", seed=seed)
    out = command("compare", "logs/a", "b=logs/b1,logs/b7,logs/b9").out
    assert "at least 3 each would tell" in out or "what other seeds of" in out
    assert out.endswith("The missing seeds:\n  python -m cifar_lightning -m activation=relu seed=1,9\n")


def test_a_folder_alone_stands_for_all_its_rows_with_holms_p_values(command, sweep):
    outcome = command("compare", "logs/sweep", "out=compared")
    rows = read_csv("compared/comparison.csv")
    pairs = [(row["first"], row["second"]) for row in rows]
    names = [f"activation={name}" for name in ("relu", "tanh", "elu")]
    assert pairs == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    p, corrected = (sorted(row[key] for row in rows) for key in ("p", "p holm"))
    assert corrected[0] == pytest.approx(3 * p[0])
    assert corrected[1] == pytest.approx(max(2 * p[1], 3 * p[0]))
    assert outcome.out.count("after Holm") == 3
    assert [row["decided"] for row in rows] == ["false", "true", "true"]
    assert [row["verdict"] in outcome.out for row in rows] == [True] * 3
    markdown = Path("compared/comparison.md").read_text()
    assert all(f"- {row['verdict']}" in markdown for row in rows)
    with Image.open("compared/figures/differences.png") as image:
        assert image.width > 900
    assert sorted(path.name for path in Path("compared").iterdir()) == ["comparison.csv", "comparison.md", "figures"]


@pytest.mark.parametrize(
    "words",
    [
        ["logs/sweep:activation=relu", "logs/sweep:activation=elu"],
        ["logs/sweep:1", "logs/sweep:3"],
        ["logs/sweep/summary.csv:1", "logs/sweep/summary.csv:3"],
        ["logs/sweep", "activation=relu,model=cnn2", "activation=elu"],
        ["logs/sweep", "A=activation=relu", "B=activation=elu"],
        ["A=logs/sweep:relu", "B=logs/sweep:elu"],
        [
            f"{name}=" + ",".join(f"logs/sweep/activation={name},seed={s}" for s in (1, 2, 3))
            for name in ("relu", "elu")
        ],
    ],
)
def test_a_side_may_be_written_in_several_ways(command, sweep, words):
    (sweep / "summary.csv").touch()
    outcome = command("compare", *words)
    assert outcome.err == ""
    names = [word.partition("=")[0] for word in words[-2:]] if words[0][:2] != "lo" or words[1][:2] == "A=" else []
    first, second = names or ["activation=relu", "activation=elu"]
    assert f"{first} is better than {second} by " in outcome.out


def test_a_folder_of_one_setting_is_a_side_beside_others(command, sweep):
    write_sweep(Path("alone"), {"gelu": networks(0.9, start=30)})
    write_answers(Path("theirs.csv"), networks(0.3)[0])
    assert (
        "activation=gelu, model=cnn2 is better than this network of theirs by"
        in command("compare", "alone", "theirs=theirs.csv").out
    )
    out = command("compare", "logs/sweep", "theirs.csv", "relu").out
    assert "relu is better than this network of theirs.csv by" in out.replace("relu is", "activation=relu is")


def test_a_damaged_record_is_no_traceback(command, sweep):
    path = sweep / "activation=relu,seed=1" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": "python -m cifar_lightning 'a"}))
    outcome = command("compare", "logs/sweep:relu", "logs/sweep:tanh")
    assert (outcome.code, outcome.err) == (0, "")
    folder = Path("evaluated")
    write_answers(folder / "predictions.csv", networks(0.8)[0])
    record = {"test/acc": 0.8, "seed": [1], "overrides": 5, "command": 3, "data": {}, "test/acc_per_class": 7}
    (folder / "evaluation.json").write_text(json.dumps(record))
    outcome = command("compare", "evaluated", "logs/sweep:relu")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "one was tested on {}, the other on made-up" in outcome.err


def test_runs_given_by_their_folders_are_named_by_what_tells_them_apart(command, sweep):
    out = command("compare", "logs/sweep/activation=relu,seed=1", "logs/sweep/activation=elu,seed=2").out
    assert "this network of activation=relu is better than this one of activation=elu by" in out
    out = command("compare", "logs/sweep/activation=relu,seed=1", "logs/sweep/activation=relu,seed=2").out
    assert "logs/sweep/activation=relu,seed=1 - logs/sweep/activation=relu,seed=2" in out


def test_one_network_each_is_mcnemars_test_and_about_these_two_only(command):
    first, second = networks(0.8)[0], networks(0.7, start=6)[0]
    write_run(Path("a"), first, "activation=relu")
    write_run(Path("b"), second, "activation=tanh", seed=2)
    out = command("compare", "a", "b").out
    found = api.compare("a", "b").differences[0]
    expected = stats.binomtest(int((first & ~second).sum()), int((first ^ second).sum())).pvalue
    assert found.p == pytest.approx(expected)
    assert expected < 0.05
    p = f"= {expected:.3f}" if expected >= 0.001 else "< 0.001"
    assert f"n = 1 + 1 networks, p {p}); what other seeds of activation=" in out
    assert "this network of activation=relu is better than this one of activation=tanh" in out
    assert out.splitlines()[-2:] == [
        "  python -m cifar_lightning -m activation=relu seed=2,3",
        "  python -m cifar_lightning -m activation=tanh seed=1,3",
    ]


def class_lines(correct):
    return [NAMES[k] for k in answers_of(correct)]


def probabilities(correct):
    scores = np.full((len(correct), len(NAMES)), 0.1)
    scores[np.arange(len(correct)), answers_of(correct)] = 0.8
    return scores.tolist()


def numbered(correct):
    """Lines with the number of the image, the last one first."""
    return [f"{i},{name}" for i, name in enumerate(class_lines(correct))][::-1]


def as_predict_does(correct):
    images = [{"image": str(i), "prediction": name, "confidence": 0.5, "probabilities": dict.fromkeys(NAMES, 0.3)}
              for i, name in enumerate(class_lines(correct))]  # fmt: skip
    return json.dumps({"class_names": NAMES, "images": images})


FORMS = {
    "names.csv": lambda c: "\n".join(class_lines(c)),
    "numbers.csv": lambda c: "\n".join(str(k) for k in answers_of(c)),
    "headed.csv": lambda c: "\n".join(["answer", *class_lines(c)]),
    "floats.csv": lambda c: "\n".join(f"{k:.1f}" for k in answers_of(c)),
    "indexed.csv": lambda c: "\n".join(["index,prediction", *numbered(c)]),
    "pairs.csv": lambda c: "\n".join(numbered(c)),
    "probabilities.csv": lambda c: "\n".join(",".join(map(str, row)) for row in probabilities(c)),
    "by_name.csv": lambda c: "\n".join(
        ["p(frog),index,p(cat),p(dog)", *(f"{f},{i},{k},{d}" for i, (k, d, f) in enumerate(probabilities(c)))]
    ),
    "class_header.csv": lambda c: "\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in probabilities(c))]),
    "names.json": lambda c: json.dumps(class_lines(c)),
    "rows.json": lambda c: json.dumps(probabilities(c)),
    "columns.json": lambda c: json.dumps({"index": list(range(len(c)))[::-1], "probabilities": probabilities(c)[::-1]}),
    "records.json": lambda c: json.dumps([{"index": i, "prediction": a} for i, a in enumerate(class_lines(c))]),
    "predict.json": as_predict_does,
}


@pytest.mark.parametrize("form", FORMS)
def test_other_peoples_predictions_may_have_any_of_these_forms(command, form):
    ours, theirs = networks(0.8)[0], networks(0.6, start=3)[0]
    write_run(Path("run"), ours)
    Path(form).write_text(FORMS[form](theirs))
    outcome = command("compare", "ours=run", f"theirs={form}", "out=compared")
    assert outcome.code == 0
    (row,) = read_csv("compared/comparison.csv")
    assert (row["first acc"], row["second acc"]) == pytest.approx((ours.mean(), theirs.mean()))
    assert outcome.err.startswith("no gallery of images: ")  # there are no images of made-up data


def test_files_alone_need_the_data_that_they_are_about(command):
    labels = api.load_data(api.compose(["data=digits"])).test.labels.numpy()
    for name, wrong in (("a", 10), ("b", 40)):
        Path(f"{name}.csv").write_text("\n".join(str(k) for k in [*(labels[:-wrong]), *((labels[-wrong:] + 1) % 10)]))
    refused = command("compare", "a.csv", "b.csv")
    assert (
        refused.err == "error: none of the files holds the true classes: say which data it is, such as data=cifar10\n"
    )
    outcome = command("compare", "a.csv", "b.csv", "data=digits", "out=compared")
    assert outcome.err == ""
    (row,) = read_csv("compared/comparison.csv")
    assert row["difference"] == pytest.approx(30 / len(labels))
    assert row["seed noise"] is None
    assert {path.name for path in Path("compared/figures").iterdir()} == {"differences.png", "gallery.png"}


def test_several_files_are_networks_of_one_side(command):
    for i, correct in enumerate([*networks(0.8), *networks(0.6, start=9)]):
        write_answers(Path(f"{i}.csv"), correct)
    out = command("compare", "good=0.csv,1.csv,2.csv", "bad=3.csv,4.csv,5.csv").out
    assert "good is better than bad by" in out
    assert "n = 3 + 3 seeds" in out


def test_the_validation_split_needs_answers_that_evaluate_writes(command):
    for name in ("relu", "tanh"):
        write_run(Path(name), networks(0.5)[0], f"activation={name}")
    error = command("compare", "relu", "tanh", "split=val").err
    assert "evaluate ckpt_path=relu/checkpoints/best.ckpt split=val\n" in error
    for name, share in (("relu", 0.8), ("tanh", 0.6)):
        write_answers(Path(name, "checkpoints", "best_val", "predictions.csv"), networks(share, n=90)[0])
    outcome = command("compare", "relu", "tanh", "split=val")
    assert "90 images of the validation split" in outcome.out
    assert "activation=relu is better" in outcome.out.replace("this network of ", "")
    config = Path("tanh/config.yaml")
    config.write_text(config.read_text().replace("split_seed: 42", "split_seed: 43"))
    error = command("compare", "relu", "tanh", "split=val").err
    assert "their validation splits differ: data.split_seed is 42 and 43" in error


def test_what_was_not_tested_on_the_same_images_is_refused(command):
    right = networks(0.8)[0]
    write_run(Path("run"), right)
    other_seed = {"seed": 2}
    cases = {
        "checksum": ({"data_checksum": "4567"}, right, "their data have the checksums 0123 and 4567"),
        "data": ({"data": "cifar100"}, right, "one was tested on made-up, the other on cifar100"),
        "classes": ({"test/acc_per_class": {"cat": 1.0, "dog": 1.0}}, right, "their classes differ, 3 and 2"),
        "fewer": ({}, right[:-1], "fewer/predictions.csv has 599 images where 600 are compared"),
    }
    for name, (changes, correct, words) in cases.items():
        write_run(Path(name), correct, **other_seed, **changes)
        outcome = command("compare", "run", f"./{name}")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert words in outcome.err
    shifted = write_run(Path("labels"), right, **other_seed) / "predictions.csv"
    lines = shifted.read_text().splitlines()
    shifted.write_text("\n".join([lines[0], lines[1].replace("0,cat,", "0,frog,"), *lines[2:]]))
    assert (
        "is about other images: number 0 is of class frog there, of cat elsewhere"
        in command("compare", "run", "labels").err
    )


def test_a_variant_of_the_training_images_is_no_other_test_set(command):
    write_run(Path("all"), networks(0.8)[0])
    write_run(Path("few"), networks(0.5)[0], of_data={"train_size": 100}, data_checksum="89ab")
    outcome = command("compare", "all", "few")
    assert (outcome.code, outcome.err) == (0, "")


BAD_FILES = {
    "": "is empty",
    "cat\nzebra\n" + "cat\n" * (N - 2): "'zebra' is none of the 3 classes cat … frog",
    "7\n" * N: "'7' is none of the 3 classes",
    "-1\n" * N: "'-1' is none of the 3 classes",
    "1.5\n" * N: "'1.5' is none of the 3 classes",
    "index,prediction\n0,cat\n0,dog\n": "image 0 is there twice",
    "index,prediction\nx,cat\n": "index 'x' is not the number of an image",
    "index,prediction\n0,cat\n1\n": "line 3: 1 values instead of 2",
    "0.1,0.2,0.3,0.4,0.5\n" * N: "has 5 columns, but there are 3 classes",
    "nan,0.2,0.3\n" * N: "image 0 has a value that is not finite",
    "a,b,c\nx,0.2,0.3\n": "could not convert string to float",
    "index,prediction\n" + "".join(f"{i + 1},cat\n" for i in range(N)): "has image 1 in the place of 0",
    "cat\ncat\0\n": "'cat\\x00' is none of the 3 classes",
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_a_file_that_holds_no_predictions_is_refused_in_one_line(command, content):
    write_run(Path("run"), networks(0.8)[0])
    Path("theirs.csv").write_text(content)
    outcome = command("compare", "run", "theirs.csv", "out=compared")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert BAD_FILES[content] in outcome.err
    assert outcome.err.startswith("error: theirs.csv")
    assert not Path("compared").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", "3", '[{"a": 1}, 2]', '{"index": [1], "prediction": ["cat", "cat"]}']
)
def test_json_that_holds_no_predictions_is_refused_in_one_line(command, content):
    write_run(Path("run"), networks(0.8)[0])
    Path("theirs.json").write_text(content)
    outcome = command("compare", "run", "theirs.json")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("error: theirs.json can't be read: ")


ROWS = (
    "choose one with logs/sweep:ROW, by number, name or key=value: 1 activation=relu; 2 activation=tanh; 3 activation"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SIDE is missing"),
        (["nowhere", "logs/sweep:1"], "nowhere: there is no such file or folder"),
        (["logs/sweep:activation=rleu", "logs/sweep:1"], f"logs/sweep:activation=rleu fits 0 rows; {ROWS}"),
        (["logs/sweep:4", "logs/sweep:1"], f"logs/sweep:4 fits 0 rows; {ROWS}"),
        (["logs/sweep:model=cnn2", "logs/sweep:1"], f"logs/sweep:model=cnn2 fits 3 rows; {ROWS}"),
        (["logs/sweep", "activation=relu"], "activation=relu is only one side"),
        (["logs/sweep:1", "relu=logs/sweep:activation=relu"], "compare different networks"),
        (["logs/sweep:1", "logs"], "logs has 3 rows; choose one"),
        (["a=logs/sweep:1,logs/sweep:2", "logs/sweep:3"], "a is no single setting"),
        (["logs/sweep:1", "empty"], "empty: no finished run"),
        (["logs/sweep:1", "logs/sweep:2", "split=train"], "split=train: there is no such choice"),
        (["logs/sweep:1", "logs/sweep:2", "splt=val"], "there is no key splt; did you mean split?"),
        (["logs/sweep:1", "logs/sweep:2", "out=logs/sweep/multirun.yaml"], "is a file: give another name"),
    ],
)
def test_a_mistake_is_one_line(command, sweep, words, message):
    Path("empty").mkdir()
    outcome = command("compare", *words)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert outcome.err.startswith("error: ")
    assert message in outcome.err


SMALL = ["data=digits", "model=cnn2", "trainer.max_epochs=1", "logger=none"]


@pytest.mark.slow
def test_runs_that_were_trained_are_compared_and_their_images_shown(command):
    for activation in ("relu", "tanh"):
        assert command(*SMALL, f"activation={activation}", f"hydra.run.dir=runs/{activation}").code == 0
    accuracies = [
        json.loads(Path(f"runs/{activation}/metrics.json").read_text())["test/acc"] for activation in ("relu", "tanh")
    ]
    outcome = command("compare", "runs/relu", "runs/tanh", "out=compared")
    assert (outcome.code, outcome.err) == (0, "")
    (row,) = read_csv("compared/comparison.csv")
    assert (row["first acc"], row["second acc"]) == pytest.approx(tuple(accuracies), abs=1e-6)
    with Image.open("compared/figures/gallery.png") as image:
        assert image.width > 1000
    assert "python -m cifar_lightning -m data=digits model=cnn2 trainer.max_epochs=1 logger=none" in outcome.out


@pytest.mark.slow
def test_what_evaluate_writes_is_compared_too(command):
    for activation in ("relu", "tanh"):
        command(*SMALL, f"activation={activation}", f"hydra.run.dir=runs/{activation}")
        assert command("evaluate", f"ckpt_path=runs/{activation}", "split=val").code == 0
    assert "of the validation split" in command("compare", "runs/relu", "runs/tanh", "split=val").out
    folders = [f"runs/{activation}/checkpoints/best_val" for activation in ("relu", "tanh")]
    assert "of the validation split" in command("compare", *folders, "split=val").out
    assert "is no evaluation of the test split: say split=val" in command("compare", *folders).err
    command("evaluate", "ckpt_path=runs/relu", "tta=flip")
    mirrored = command("compare", "runs/relu", "runs/relu/checkpoints/best_test_flip")
    assert (mirrored.code, mirrored.err) == (0, "")


def test_summarize_and_report_mark_the_rows_that_are_not_worse_than_the_best(command, sweep):
    outcome = command("summarize", "logs/sweep")
    marks = [rows_of(outcome.out, f"activation={name} ")[0].split(" 1.0 1 ")[1] for name in ("relu", "tanh", "elu")]
    assert marks == ["best", "not worse", "worse"]
    assert "vs. best: whether the test accuracy is significantly lower" in outcome.out
    assert [row["vs. best"] for row in read_csv(sweep / "summary.csv")] == ["best", "not worse", "worse"]
    assert "not worse" in (sweep / "summary.md").read_text()
    assert command("report", "logs/sweep").code == 0
    page = (sweep / "report.html").read_text()
    assert page.count("not worse</td>") == 1
    results = [api.Result(p.parent, json.loads(p.read_text()), []) for p in sorted(sweep.glob("*/metrics.json"))]
    assert list(api.summarize(results).marks) == ["best", "not worse", "worse"]


def test_without_a_ranking_or_answers_there_are_no_marks(command, sweep):
    assert "vs. best" not in command("summarize", "logs/sweep", "by=model").out
    for path in sweep.glob("*/predictions.csv"):
        path.unlink()
    assert "vs. best" not in command("summarize", "logs/sweep").out
    write_run(Path("unranked/a"), networks(0.9)[0], "activation=relu", val=None)
    write_run(Path("unranked/b"), networks(0.5)[0], "activation=tanh", val=None)
    assert "vs. best" not in command("summarize", "unranked").out


def test_a_row_without_answers_has_no_mark_and_one_run_is_said_to_be_one(command, sweep):
    shutil.rmtree(sweep / "activation=elu,seed=2")
    shutil.rmtree(sweep / "activation=elu,seed=3")
    (sweep / "activation=tanh,seed=1" / "predictions.csv").unlink()
    out = command("summarize", "logs/sweep").out
    assert rows_of(out, "activation=tanh ")[0].endswith(" -")
    assert rows_of(out, "activation=elu ")[0].endswith(" worse")
    assert "Where a row is one run" in out


def test_from_python_results_and_paths_are_compared(command, sweep):
    of = {
        name: [
            api.Result(folder, json.loads((folder / "metrics.json").read_text()), [])
            for folder in sorted(sweep.glob(f"activation={name},*"))
        ]
        for name in ("relu", "elu")
    }
    by_results, by_path = api.compare(of["relu"], of["elu"]), api.compare("logs/sweep:relu", sweep.parent / "sweep:elu")
    assert by_results.differences[0].p == by_path.differences[0].p
    assert [side.name for side in by_path.sides] == ["activation=relu", "activation=elu"]
    alone = api.compare([*of["relu"], *of["elu"]])
    assert alone.verdicts == by_path.verdicts
    one = api.compare(of["relu"][0], of["elu"][0])
    assert (one.images, len(one.sides[0].seeds)) == (N, 1)
    with pytest.raises(api.UserError, match="are 2 settings"):
        api.compare([*of["relu"], *of["elu"]], "logs/sweep:tanh")


def test_a_comparison_of_files_does_not_wait_for_torch(command, sweep):
    code = (
        "import sys; from cifar_lightning.commands.compare import main; assert main(sys.argv[1:]) == 0;"
        "print(sorted({'torch', 'scipy', 'statsmodels', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "logs/sweep:1", "logs/sweep:2"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_table_can_be_read_by_a_spreadsheet(command, sweep):
    command("compare", "logs/sweep:1", "logs/sweep:3", "out=compared")
    with open("compared/comparison.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert float(row["first acc"]) - float(row["second acc"]) == pytest.approx(float(row["difference"]))
    assert (row["first n"], row["images"], row["seeds paired"]) == ("3", str(N), "true")
    assert labels_of(N).max() == len(NAMES) - 1
