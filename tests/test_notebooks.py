"""The notebooks run from top to bottom on small data, and are stored with their outputs."""

import ast
import importlib
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["01_data", "02_train_and_evaluate", "03_activations", "04_inside_a_network"]
# Replaces the cell with the settings (tagged "parameters", as in papermill).
LENGTHS = {
    "01_data": "",
    "02_train_and_evaluate": "EPOCHS = 2",
    "03_activations": "ACTIVATIONS, SEEDS, EPOCHS = ['relu', 'sigmoid'], [1, 2], 1",
    "04_inside_a_network": "EPOCHS = 2",
}
# Absolute paths; relative ones such as ../logs, and URLs, are allowed.
MACHINE = re.compile(r"(?<![\w.:/])/(?!/)[\w.-]+/[\w.-]+|site-packages|[A-Z]:\\\\|file://|/home/|/Users/|/tmp/")


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook(name).cells if cell.cell_type == "code"]


def texts(name: str) -> list[str]:
    """The text outputs of a stored notebook."""
    found = []
    for output in (output for cell in code_cells(name) for output in cell.outputs):
        parts = [output.get("text", ""), *(v for kind, v in output.get("data", {}).items() if "image" not in kind)]
        found += [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return found


@pytest.mark.parametrize(
    "name", [name if name.startswith("02") else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_notebook_runs_from_top_to_bottom(name, cifar_folder, tmp_path):
    run = notebook(name)
    (settings,) = [cell for cell in run.cells if "parameters" in cell.metadata.get("tags", [])]
    small = [f"data.root={cifar_folder}", "data.verify=false", "data.val_size=60", "data.batch_size=32"]
    short = ["paths.log_dir=../logs", "logger=none"] if "log_dir" in settings.source else []
    settings.source = f"SETTINGS = {small + short}\n{LENGTHS[name]}"
    (tmp_path / "notebooks").mkdir()
    NotebookClient(run, timeout=120, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    assert all(cell.execution_count for cell in run.cells if cell.cell_type == "code")
    assert not list((tmp_path / "notebooks").iterdir())  # outputs go beside the folder


def test_all_notebooks_are_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_as_it_was_run(name):
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_its_cells_are_short(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_500_000
    assert max(len(cell.source.splitlines()) for cell in code_cells(name)) <= 15


@pytest.mark.parametrize("name", NAMES)
def test_no_absolute_path_is_stored(name):
    stored = notebook(name)
    metadata = json.dumps([stored.metadata, [cell.metadata for cell in stored.cells]])
    sources = [cell.source for cell in stored.cells if cell.cell_type == "code"]
    assert [text for text in (*texts(name), *sources, metadata) if MACHINE.search(text)] == []


def test_the_stored_outputs_are_of_the_official_data():
    assert "31,035,704 bytes" in "".join(texts("01_data"))
    for name in NAMES[1:]:
        assert "data=digits" not in "".join(cell.source for cell in code_cells(name))
        assert "CIFAR10_ROOT" in code_cells(name)[0].source


@pytest.mark.parametrize("name", NAMES)
def test_a_notebooks_imports_exist(name):
    code = "\n".join(cell.source.replace("%matplotlib", "# %matplotlib") for cell in code_cells(name))
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.startswith("cifar_lightning")]
    assert any(node.module == "cifar_lightning.api" for node in ours)
    for node in ours:
        for alias in node.names:
            try:
                importlib.import_module(f"{node.module}.{alias.name}")
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(node.module), alias.name), alias.name
