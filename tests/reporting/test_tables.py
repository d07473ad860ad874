import io
import re

import pytest
from rich.console import Console

from cifar_lightning.reporting.tables import (
    class_rows,
    duration,
    markdown_table,
    number,
    percent,
    result_rows,
    rich_table,
)

METRICS = {
    "test/acc": 0.70314,
    "test/loss": 0.98765,
    "test/top5": 0.9731,
    "test/ece": 0.0211,
    "val/acc": None,
    "val/loss": None,
    "test/acc_per_class": {"cat": 0.6, "dog": 0.9, "owl": 1.0},
    "test/precision_per_class": {"cat": 0.75, "dog": 0.7, "owl": 1.0},
    "test/f1_per_class": {"cat": 0.6667, "dog": 0.7875, "owl": 1.0},
    "test/confusion_matrix": [[6, 3, 1], [1, 9, 0], [0, 0, 10]],
    "parameters": 11181642,
    "epochs": 3,
    "train_seconds": 301.4,
    "images_per_second": 1234.5,
    "checkpoint": "last",
    "published_test_acc": 70.31,
}


def printed(table, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def parsed(markdown):
    """The rows of a Markdown table, as GitHub's rules read them: | separates unless a backslash is before it."""
    lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in markdown.splitlines()]
    header, rule, *rows = [[re.sub(r"\\([\\|])", r"\1", cell.strip()) for cell in line] for line in lines]
    assert all(re.fullmatch(":?-{3,}:?|-{2,}:", cell) for cell in rule)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_numbers_as_people_write_them():
    assert [percent(0.70314), percent(1, 0), percent(None)] == ["70.31 %", "100 %", "-"]
    assert [number(11181642), number(1234.56, 1), number(None)] == ["11,181,642", "1,234.6", "-"]
    assert [duration(s) for s in (0.42, 75.2, 99.4, 301, 3599.6, 7261, None)] == [
        "0.4 s", "75 s", "99 s", "5:01 min", "1:00 h", "2:01 h", "-",
    ]  # fmt: skip


def test_result_lists_what_is_known_and_nothing_else():
    rows = {row[""]: row for row in result_rows(METRICS)}
    assert rows["test accuracy"] == {"": "test accuracy", "this run": "70.31 %", "published": "70.31 %"}
    assert rows["calibration error (ECE)"]["this run"] == "2.11 %"
    assert rows["parameters"]["this run"] == "11,181,642"
    assert rows["training time"]["this run"] == "5:01 min"
    assert not any("validation" in name for name in rows)


def test_without_a_published_figure_there_is_no_column_for_it():
    assert "published" not in printed(rich_table(result_rows({**METRICS, "published_test_acc": None})))


def test_classes_show_their_figures_and_what_they_are_taken_for():
    rows = class_rows(METRICS)
    assert rows[0] == {
        "class": "cat", "accuracy": "60.0 %", "precision": "75.0 %", "F1": "66.7 %",
        "most often taken for": "dog (30.0 %)",
    }  # fmt: skip
    assert rows[1]["most often taken for"] == "cat (10.0 %)"
    assert rows[2]["most often taken for"] == "-"
    assert "dog (30.0 %)" in printed(rich_table(class_rows(METRICS)))


def test_accuracies_alone_make_a_table_too():
    assert class_rows({"test/acc_per_class": {"cat": 0.5}}) == [{"class": "cat", "accuracy": "50.0 %"}]


@pytest.mark.parametrize(
    "rows",
    [
        result_rows(METRICS),
        class_rows(METRICS),
        [{"run": "model=a|b, data.x=[1,2]", "n": "3"}, {"run": "back\\slash", "n": "-"}],
        [{"a": "1"}, {"b": "70.3 ± 0.4 (3)", "a": "2"}],
    ],
)
def test_markdown_reads_back_as_the_rows(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    assert parsed(markdown_table(rows)) == [{column: row.get(column, "") for column in columns} for row in rows]


def test_columns_of_numbers_are_to_the_right():
    rows = [{"run": "b", "accuracy": "70.31 ± 0.40 (3)", "time": "5:01 min"}, {"run": "1", "accuracy": "-", "time": ""}]
    assert markdown_table(rows).splitlines()[1].replace("-", "") == "|  | : | : |"
    assert ":" not in markdown_table([{"most often taken for": "4 (2.8 %)"}]).splitlines()[1]
    assert printed(rich_table(rows)).splitlines()[-2].rstrip().endswith("-")


def test_a_narrow_terminal_breaks_no_number():
    rows = [
        {"run": "classic/lenet3, data.val_size=10000", "test accuracy": "70.69 ± 0.25 (3)", "parameters": "541,094"}
    ]
    text = printed(rich_table(rows), width=46)
    assert "70.69 ± 0.25 (3)" in text
    assert "541,094" in text


def test_square_brackets_are_shown_as_they_are():
    assert "transforms=[bold]x[/bold]" in printed(rich_table([{"run": "transforms=[bold]x[/bold]"}]))
