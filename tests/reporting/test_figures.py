import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from cifar_lightning.reporting import figures

CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
HISTORY = [
    {"epoch": 1, "train/loss": 2.0, "train/acc": 0.25, "val/loss": 1.5, "val/acc": 0.40},
    {"epoch": 2, "train/loss": 1.0, "train/acc": 0.50, "val/loss": 1.2, "val/acc": 0.60},
    {"epoch": 3, "train/loss": 0.5, "train/acc": 0.75, "val/loss": 1.4, "val/acc": 0.55},
]


def lines(axes):
    """The drawn curves by the first word of their label."""
    return {line.get_label().split()[0]: line for line in axes.get_lines()}


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def saved(figure, path):
    figures.save_figure(figure, path)
    return np.asarray(Image.open(path).convert("RGB"))


def overlapping(figure):
    """Pairs of texts that are drawn over each other."""
    figure.draw_without_rendering()
    every = [text for axes in figure.axes for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]]
    # Turned labels lie side by side, though the boxes around them cross.
    boxes = [(t.get_text(), t.get_window_extent()) for t in every if t.get_text() and not t.get_rotation()]
    return [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]


def test_learning_curves_show_the_rows():
    losses, accuracies = figures.learning_curves(HISTORY, {"test/loss": 1.3, "test/acc": 0.58}).axes
    assert_allclose(lines(losses)["training"].get_xydata(), [(1, 2.0), (2, 1.0), (3, 0.5)])
    assert_allclose(lines(losses)["validation"].get_xydata(), [(1, 1.5), (2, 1.2), (3, 1.4)])
    assert_allclose(lines(accuracies)["training"].get_ydata(), [25, 50, 75])
    assert_allclose(lines(accuracies)["validation"].get_ydata(), [40, 60, 55])
    assert_allclose(lines(losses)["test"].get_ydata(), 1.3)
    assert_allclose(lines(accuracies)["test"].get_ydata(), 58)
    assert losses.get_title("left") == "Loss\nbest validation: 1.200 (epoch 2), test: 1.300"
    assert accuracies.get_title("left") == "Accuracy\nbest validation: 60.00 % (epoch 2), test: 58.00 %"
    assert (accuracies.get_xlabel(), accuracies.get_ylabel()) == ("epoch", "accuracy (%)")


def test_training_validation_and_test_differ_in_colour_and_line():
    figure = figures.learning_curves(HISTORY, {"test/loss": 1, "test/acc": 0.5})
    assert [text.get_text().split()[0] for text in figure.legends[0].get_texts()] == ["training", "validation", "test"]
    curves = lines(figure.axes[0]).values()
    assert len({to_rgba(line.get_color()) for line in curves}) == 3
    assert len({line.get_linestyle() for line in curves}) == 3


def test_learning_curves_without_validation_show_training_alone():
    history = [{**row, "val/loss": None, "val/acc": None} for row in HISTORY]
    for axes in figures.learning_curves(history).axes:
        assert list(lines(axes)) == ["training"]
        assert "\n" not in axes.get_title("left")


def test_a_missing_epoch_is_a_gap():
    history = [HISTORY[0], {**HISTORY[1], "val/acc": None}, {**HISTORY[2], "train/acc": float("nan")}]
    accuracies = lines(figures.learning_curves(history).axes[1])
    assert_allclose(accuracies["validation"].get_ydata(), [40, np.nan, 55])
    assert_allclose(accuracies["training"].get_ydata(), [25, 50, np.nan])


def test_a_single_epoch_is_a_visible_dot(tmp_path):
    figure = figures.learning_curves(HISTORY[:1])
    assert all(line.get_marker() not in ("", "None") for axes in figure.axes for line in axes.get_lines())
    blue = (255 * np.array(to_rgba(figures.COLORS["train"])[:3])).round()
    image = saved(figure, tmp_path / "one.png")
    x, y = figure.axes[0].transData.transform((1, 2.0))
    assert_allclose(image[round(image.shape[0] - y), round(x)], blue, atol=2)


def test_no_history_says_so():
    figure = figures.learning_curves([])
    assert "No epoch" in figure.texts[0].get_text()


@pytest.mark.parametrize("percent", [False, True])
def test_confusion_matrix_writes_every_count_in_its_cell(percent):
    counts = np.arange(100).reshape(10, 10)
    (axes,) = figures.confusion_matrix(counts.tolist(), CLASSES, percent=percent).axes
    shares = counts / counts.sum(1, keepdims=True)
    written = {tuple(map(int, text.get_position()))[::-1]: text.get_text() for text in axes.texts}
    expected = {(i, j): f"{100 * shares[i, j]:.1f}" if percent else str(counts[i, j]) for i, j in np.ndindex(10, 10)}
    assert written == expected
    assert_allclose(axes.images[0].get_array(), shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")


def test_numbers_in_the_confusion_matrix_stand_out_from_their_cells():
    counts = np.diag([1000] * 10) + 20
    (axes,) = figures.confusion_matrix(counts, CLASSES).axes
    image = axes.images[0]
    for text in axes.texts:
        column, row = map(int, text.get_position())
        cell = luminance(image.cmap(image.norm(image.get_array()[row, column])))
        lighter, darker = sorted([luminance(to_rgba(text.get_color())), cell], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5  # WCAG 2, level AA


def luminance(rgba):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_confusion_matrix_of_a_class_without_images_is_no_division_by_zero():
    counts = np.diag([3] * 9 + [0])
    with np.errstate(all="raise"):
        (axes,) = figures.confusion_matrix(counts, CLASSES).axes
    assert_allclose(axes.images[0].get_array()[9], 0)


def test_accuracy_per_class_draws_bars_in_order():
    accuracies = dict(zip(CLASSES, np.linspace(0.5, 0.95, 10), strict=True))
    (axes,) = figures.accuracy_per_class(accuracies).axes
    assert_allclose([bar.get_width() for bar in axes.patches], np.linspace(50, 95, 10))
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert axes.yaxis_inverted()  # the first class on top
    assert texts(axes) == [f"{100 * accuracy:.1f}" for accuracy in accuracies.values()]
    assert_allclose(axes.get_lines()[0].get_xdata(), np.mean(np.linspace(50, 95, 10)))


def test_digits_as_class_names_are_names(caplog):
    with caplog.at_level("INFO"):
        (axes,) = figures.accuracy_per_class({"3": 0.5, "1": 0.25}).axes
        figures.pixels(axes.figure)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "1"]
    assert caplog.messages == []  # matplotlib remarks on strings that look like numbers


def test_a_class_without_images_has_no_accuracy():
    (axes,) = figures.accuracy_per_class({"cat": 0.5, "dog": float("nan")}).axes
    assert texts(axes) == ["50.0", "no images"]
    assert_allclose(axes.get_lines()[0].get_xdata(), 50)


@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_image_grid_shows_every_pixel_three_times_three_in_order(n, tmp_path):
    images = np.random.default_rng(n).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    captions = [f"caption {i}" for i in range(n)]
    figure = figures.image_grid(images, captions, title="Samples")
    drawn = saved(figure, tmp_path / "grid.png")
    assert texts(figure.axes[0]) == [*captions, "Samples"]
    for image, caption in zip(images, figure.axes[0].texts, strict=False):
        # Its caption's anchor tells where an image must be: right above it, centred.
        x, y = map(round, caption.get_position())
        tile = image.transpose(1, 2, 0).repeat(3, axis=0).repeat(3, axis=1)
        distances = [d for d in range(20) if np.array_equal(drawn[y - d - 96 : y - d, x - 48 : x + 48], tile)]
        assert len(distances) == 1


def test_captions_do_not_touch():
    images = np.zeros((12, 3, 32, 32), dtype=np.uint8)
    assert overlapping(figures.image_grid(images, ["automobile"] * 12)) == []
    same = np.ones(12, dtype=int)
    assert overlapping(figures.mistakes(images, same, 0 * same, 1.0 * same, ["automobile", "automobile"])) == []


def test_an_empty_grid_says_so():
    figure = figures.image_grid(np.zeros((0, 3, 32, 32), dtype=np.uint8))
    assert "no images" in figure.texts[0].get_text()


def test_mistakes_are_the_surest_wrong_ones():
    # Each image is of one colour, its index.
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 32, 32), dtype=np.uint8)
    labels, predictions = [0, 1, 2, 0, 1, 2], [0, 2, 2, 1, 0, 0]
    confidences = [0.99, 0.5, 0.98, 0.7, 0.9, 0.8]
    figure = figures.mistakes(images, labels, predictions, confidences, ["ant", "bee", "cow"], most=3)
    *captions, title = texts(figure.axes[0])
    assert captions == ["ant, 90.0 %", "true: bee", "ant, 80.0 %", "true: cow", "bee, 70.0 %", "true: ant"]
    assert "3 of 4" in title
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    assert_array_equal([canvas[60, x, 0] for x in (60, 60 + 136, 60 + 2 * 136)], [4, 5, 3])


def test_no_mistakes_say_so():
    figure = figures.mistakes(np.zeros((2, 3, 32, 32), dtype=np.uint8), [0, 1], [0, 1], [1.0, 1.0], ["ant", "bee"])
    assert figure.texts[0].get_text() == "No mistakes: all 2 images were classified correctly."


def every_figure():
    rng = np.random.default_rng(0)
    return {
        "learning_curves": figures.learning_curves(HISTORY, {"test/loss": 1.3, "test/acc": 0.58}),
        "confusion_matrix": figures.confusion_matrix(rng.integers(0, 1000, (10, 10)), CLASSES),
        "accuracy_per_class": figures.accuracy_per_class(dict(zip(CLASSES, rng.random(10), strict=True))),
    }


def test_no_text_covers_another():
    for name, figure in every_figure().items():
        assert overlapping(figure) == [], name


def test_pictures_are_light_small_and_of_the_stated_resolution(tmp_path):
    for name, figure in every_figure().items():
        image = saved(figure, tmp_path / f"{name}.png")
        assert_array_equal(image[0, 0], [255, 255, 255])
        assert (tmp_path / f"{name}.png").stat().st_size < 150_000
        assert_allclose(image.shape[1], figure.get_figwidth() * figures.DPI, atol=1)


def test_a_persons_own_matplotlib_style_changes_nothing(tmp_path):
    plain = saved(figures.learning_curves(HISTORY), tmp_path / "plain.png")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        other = saved(figures.learning_curves(HISTORY), tmp_path / "other.png")
    assert_array_equal(plain, other)


def test_a_figure_has_the_same_pixels_in_a_file_and_in_an_array(tmp_path):
    assert_array_equal(
        saved(figures.learning_curves(HISTORY), tmp_path / "x.png"), figures.pixels(figures.learning_curves(HISTORY))
    )


def test_a_figure_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "curves.png"
    figures.save_figure(figures.learning_curves(HISTORY), path)
    old = path.read_bytes()
    broken = figures.message("")
    broken.text(0, 0, "$\\nosuchsymbol$", parse_math=True)
    with pytest.raises(ValueError, match="nosuchsymbol"):
        figures.save_figure(broken, path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["curves.png"]


def test_pyplot_is_not_imported():
    code = "import sys; from cifar_lightning.reporting import figures; figures.message('x'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "matplotlib.figure" in modules
    assert not {"matplotlib.pyplot", "torch"} & set(modules)


def test_a_run_that_diverged_at_once_still_has_a_figure(tmp_path):
    nan = float("nan")
    figure = figures.learning_curves([{"epoch": 1, "train/loss": nan, "train/acc": nan, "val/loss": None}])
    assert all(axes.get_lines()[:] == [] for axes in figure.axes)
    saved(figure, tmp_path / "nan.png")
