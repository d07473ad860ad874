"""The page of a report: its numbers, that it needs nothing else, and that nothing in a file becomes markup."""

import base64
import io
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cifar_lightning.commands.report import main
from cifar_lightning.reporting.html import breakable, render_page
from cifar_lightning.reporting.pages import WITH_FIGURES

HOSTILE = """</pre><script>alert('1')</script><img src=x onerror="alert(2)">{{ 7 * 7 }}&amp;"""
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """What a browser would make of it. Fails on a tag that is closed wrongly, or not at all."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source.replace("<wbr>", ""))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if text.strip():
            self.texts.append(text.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 30), color).save(buffer, "png")
    return buffer.getvalue()


def write_run(folder: Path, words: str = "plain", *, figure: str = "extra", **changes) -> Path:
    """A run's folder in which every free text is `words`, unless `changes` of its metrics say otherwise."""
    (folder / "figures").mkdir(parents=True)
    metrics = {
        "test/acc": 0.8125, "test/loss": 0.5, "val/acc": 0.825, "val/loss": 0.6, "parameters": 1234, "epochs": 2,
        "test/acc_per_class": {words: 0.75, "dog": 0.875}, "test/confusion_matrix": [[6, 2], [1, 7]],
        "train_seconds": 75.2, "images_per_second": 1000.0, "checkpoint": "best", "experiment": words, "model": words,
        "overrides": [f"optimizer.lr={words}", "seed=1"], "command": f"python -m cifar_lightning {words}", "seed": 1,
        "precision": words, "accelerator": words, "data": words, "data_checksum": words, "hardware": words,
        "versions": {words: words}, "date": "2026-11-21T10:00:00+00:00", "tags": [words], "task_name": words,
    } | changes  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump({"choices": {"model": words, "debug": None}, "note": words}))
    history = "epoch,step,train/loss,train/acc,val/loss,val/acc,lr,seconds\n"
    (folder / "history.csv").write_text(f"{history}1,10,1.5,0.5,1.25,0.625,0.1,30\n2,20,1.0,0.75,0.6,0.825,0.01,75.2\n")
    quoted = words.replace('"', '""')
    (folder / "predictions.csv").write_text(
        f'index,label,prediction,confidence\n0,"{quoted}",dog,0.6\n1,dog,dog,0.99\n2,"{quoted}",dog,0.9\n'
    )
    for name, color in (("learning_curves", "red"), ("mistakes", "green"), (figure, "blue")):
        (folder / "figures" / f"{name}.png").write_bytes(png(color))
    return folder


def write_sweep(folder: Path, words: str = "plain") -> Path:
    """Two settings with three seeds each, and a failed job."""
    for lr, start in (("0.1", 0.5), ("0.2", 0.75)):
        for seed in (1, 2, 3):
            changes = {"val/acc": start + seed / 100, "test/acc": start - seed / 50, "seed": seed}
            write_run(
                folder / f"lr={lr},seed={seed}", words, overrides=[f"optimizer.lr={lr}", f"seed={seed}"], **changes
            )
    (folder / "lr=9" / ".hydra").mkdir(parents=True)
    (folder / "lr=9" / "failure.json").write_text(json.dumps({"reason": f"{words}: loss is not finite"}))
    task = ["data=digits", "optimizer.lr=0.1,0.2,9", "seed=1,2,3"]
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": task}}}))
    return folder


def reported(folder: Path, *arguments: str) -> Page:
    assert main([str(folder), *arguments]) == 0
    return Page(folder / "report.html")


def test_a_run_is_told_in_full(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    page = reported(folder)
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    for words in (
        "test accuracy 81.25 %", "validation accuracy 82.50 %", "parameters 1,234", "training time 75 s",
        "plain 75.0 % dog (25.0 %) dog 87.5 % plain (12.5 %)",  # classes
        "1 1.5000 50.00 % 1.2500 62.50 % 0.1 30 s 2 1.0000 75.00 % 0.6000 82.50 % 0.01 75 s",  # history
        "2 plain dog 90.0 % 0 plain dog 60.0 %",  # mistakes, the most confident first
        "python -m cifar_lightning plain", "Seed 1", "checksum plain", "optimizer.lr plain", "note: plain",
        "2026-11-21 10:00:00 UTC",
    ):  # fmt: skip
        assert words in page.text, words
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert Counter(headings)["h1"] == 1
    assert headings == sorted(headings)


def test_figures_are_inside_with_words_for_those_who_can_not_see_them(tmp_path):
    folder = write_run(tmp_path / "run")
    images = reported(folder).all("img")
    inside = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert inside == [
        (folder / "figures" / f"{name}.png").read_bytes() for name in ("learning_curves", "mistakes", "extra")
    ]
    assert all(len(image["alt"]) > 5 for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("60", "30")}


@pytest.mark.parametrize("write", [write_run, write_sweep])
def test_it_needs_no_network_and_no_javascript(tmp_path, write):
    page = reported(write(tmp_path / "folder"))
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "dl", "div", "dt", "dd",
               "small", "nav", "ul", "li", "a", "main", "section", "table", "caption", "thead", "tbody", "tr", "th",
               "td", "span", "figure", "img", "figcaption", "details", "summary", "pre", "footer", "code"}  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not re.search(r"url\(|@import|https?:", page.source)
    assert any(meta.get("content", "").startswith("default-src 'none'") for meta in page.all("meta"))


@pytest.mark.parametrize("write", [write_run, write_sweep])
def test_it_is_made_for_everybody(tmp_path, write):
    page = reported(write(tmp_path / "folder"))
    assert page.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    assert {link["href"][1:] for link in page.all("a")} == set(identities)
    tables = len(page.all("table"))
    assert len(page.all("caption")) == tables
    # Each stands in a box of its own that scrolls, by keyboard, too; a figure fits, and opens to its full size.
    boxes = [box for box in page.all("div") if box.get("class") == "scroll"]
    assert len(boxes) == tables
    assert page.source.count('<summary><span class="scroll">\n<img ') == len(page.all("img"))
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))


def test_text_can_be_read_on_light_and_on_dark():
    style = (Path(sys.modules[render_page.__module__].__file__).parent / "templates" / "style.css").read_text()
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root {([^}]*)}", style))
    for colors in (light, dark):
        for ink in ("text", "soft", "accent"):
            for ground in ("page", "card"):
                assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)  # WCAG 2.2, 1.4.3
    assert luminance(dark["page"]) < 0.05 < 0.9 < luminance(light["page"])


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("write", [write_run, write_sweep])
def test_nothing_in_a_file_becomes_markup(tmp_path, write):
    plain = reported(write(tmp_path / "plain"))
    hostile = reported(write(tmp_path / "<b onclick=x>", HOSTILE))
    structure = [[(tag, sorted(attributes)) for tag, attributes in page.tags] for page in (plain, hostile)]
    if write is write_sweep:  # matplotlib draws what it is given; both have the figures
        assert len(plain.all("img")) == len(hostile.all("img"))
    # Longer cells get a class of their own, nothing else changes.
    tags = [[tag for tag, _ in one] for one in structure]
    assert tags[0] == tags[1]
    assert not any(name.startswith("on") for _, names in structure[1] for name in names)
    assert HOSTILE in hostile.text
    assert "49" not in re.findall(r"\b49\b", hostile.text)


def test_a_hostile_name_of_a_figure_is_a_name(tmp_path):
    page = reported(write_run(tmp_path / "run", figure='x" onload="alert(1)'))
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert any('onload="alert(1)' in image["alt"] for image in page.all("img"))


def test_a_sweep_has_a_row_for_each_setting_and_says_what_failed(tmp_path):
    page = reported(write_sweep(tmp_path / "sweep"))
    vals = [75 + seed for seed in (1, 2, 3)]
    mean = f"{statistics.fmean(vals):.2f} ± {statistics.stdev(vals):.2f}"
    assert f"its validation accuracy {mean} %" in page.text
    assert "Sweep over optimizer.lr and seed" in page.text
    assert "lr=9 failed: plain: loss is not finite" in page.text
    assert "python -m cifar_lightning -m data=digits optimizer.lr=0.1,0.2,9 seed=1,2,3" in page.text
    rows = [text for text in page.texts if text.endswith(("lr=0.1", "lr=0.2"))]
    best, *table = rows
    assert best == "plain, optimizer.lr=0.2"
    assert table[:2] == [best, "plain, optimizer.lr=0.1"]  # the better one first
    for lr in ("0.1", "0.2"):
        for seed in (1, 2, 3):
            assert f"plain, optimizer.lr={lr}, seed {seed}" in page.texts
            assert f"lr={lr},seed={seed}" in page.texts
    assert len(page.all("img")) >= 6 * 2 + 2  # two of each run, and the comparison


def test_runs_that_are_no_sweep_stand_side_by_side(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "logs" / f"run{seed}", seed=seed, overrides=[f"seed={seed}"])
    page = reported(tmp_path / "logs")
    assert page.texts[0] == "Runs in logs"
    assert "81.25 ± 0.00 (2)" in page.text
    assert "each has its own above" in page.text


def test_of_very_many_runs_not_all_figures_are_shown(tmp_path):
    for seed in range(WITH_FIGURES + 3):
        write_run(tmp_path / "logs" / f"run{seed}", seed=seed, overrides=[f"seed={seed}"])
    page = reported(tmp_path / "logs")
    assert len([image for image in page.all("img") if image["width"] == "60"]) == 2 * WITH_FIGURES
    assert "The other 3 runs" in page.text
    assert f"run{WITH_FIGURES + 2}" in page.texts


def test_a_run_that_says_little_is_told_in_little(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"test/acc": 0.5, "overrides": []}))
    page = reported(folder)
    assert "test accuracy 50.00 %" in page.text
    assert page.all("img") == []
    assert "Mistakes" not in page.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "error: no run to report on: no usable metrics.json in or below run.\n"),
        ("{", "error: run/metrics.json: not a JSON file"),
        ('{"loss": 1}', "error: run/metrics.json: not the result of a run"),
        ('{"test/acc": 0.5, "overrides": [], "test/acc_per_class": 3}', "error: run/metrics.json: can't be shown"),
        ('{"test/acc": 0.5, "overrides": [], "versions": ["torch"]}', "error: run/metrics.json: seed or versions"),
    ],
)
def test_a_folder_without_a_usable_run_is_an_error_of_one_line(tmp_path, monkeypatch, capsys, content, message):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    if content:
        Path("run/metrics.json").write_text(content)
    assert main(["run"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(message)
    assert not Path("run/report.html").exists()


def test_other_mistakes_are_one_line_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"))
    assert main(["nowhere"]) == 1
    assert capsys.readouterr().err == "error: nowhere is not a folder. Give folders that hold runs, such as logs.\n"
    assert main(["run", "out=run/metrics.json/page.html"]) == 1
    assert capsys.readouterr().err.startswith("error: can't write run/metrics.json/page.html: ")


def test_what_can_not_be_read_is_named_and_the_rest_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        write_run(Path("logs") / name, seed=ord(name))
    Path("logs/b/metrics.json").write_text("{")
    Path("logs/c/metrics.json").write_text('{"test/acc": 0.5, "overrides": [], "versions": ["torch"], "seed": 3}')
    assert main(["logs", "out=page.html"]) == 1
    out, err = capsys.readouterr()
    assert out == "page.html\n"
    assert [line.partition(".json")[0] for line in err.splitlines()] == [
        "left out: logs/b/metrics",
        "left out: logs/c/metrics",
    ]
    page = Page(Path("page.html"))
    assert "logs/b/metrics.json not a JSON file" in page.text
    assert "81.25" in page.text


def test_help_shows_examples_and_torch_is_not_imported(tmp_path):
    write_run(tmp_path / "run")
    program = (
        "import sys\nfrom cifar_lightning.commands.report import main\nmain(['run'])\n"
        "print({'torch', 'matplotlib', 'hydra'} & set(sys.modules))\nmain(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["run/report.html", "set()"]
    assert "  python -m cifar_lightning report logs/train/runs/NAME" in lines
    assert max(map(len, lines)) <= 115
    assert len(lines) < 35


def test_titles_break_between_the_words_of_a_setting_and_numbers_keep_their_unit():
    assert breakable("lr=0.1") == "lr=0.1"
    assert breakable("81.42 ± 2.21 %") == "81.42 ±\N{NO-BREAK SPACE}2.21\N{NO-BREAK SPACE}%"
    long = "callbacks.early_stopping.patience=0.125"
    assert breakable(long) == "callbacks.<wbr>early_<wbr>stopping.<wbr>patience=<wbr>0.125"
    assert "<script" not in breakable("<script>alert(1)</script>=,/,/=<b>")
    assert breakable("=&" * 20).count("<wbr>") == 20
