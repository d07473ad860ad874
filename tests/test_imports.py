"""Imports point one way through the package, from the commands at the front to the libraries behind them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cifar_lightning"
# Each may import those before it.
ORDER = [
    "errors", "console", "natural_order", "data", "models", "config", "optim", "training", "reporting", "callbacks",
    "checkpoints", "evaluation", "runs", "sweeps", "api", "search", "commands", "__main__",
]  # fmt: skip


def layer(module: str) -> str:
    return module.split(".")[1]


def imported(path: Path) -> set[str]:
    """The layers that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE.name:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE.name}.")]
        else:
            continue
        found |= {layer(name) for name in full}
    return found - {"__version__"}


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_backwards_only(name):
    files = sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / f"{name}.py"]
    for path in files:
        later = imported(path) - set(ORDER[: ORDER.index(name) + 1])
        assert not later, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(later))}"


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(ORDER) == folders | files
