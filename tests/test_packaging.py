import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return out


def test_the_wheel_composes_a_config_from_another_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # The wheel's own files come before the clone's, which the environment of the tests has installed.
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        "from cifar_lightning.config.compose import compose, conf_dir\n"
        "print(conf_dir()); print(compose(['experiment=classic/alexnet']).data.batch_size)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=elsewhere, check=True, capture_output=True, text=True)
    folder, batch_size = done.stdout.split()
    assert Path(folder) == site / "cifar_lightning" / "conf"
    assert batch_size == "16"


def test_wheel_and_sdist_hold_every_config_and_the_digits(built):
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"cifar_lightning/{name}" for name in configs} <= names
    assert {"cifar_lightning/data/digits.npz", "cifar_lightning/py.typed"} <= names
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "cifar_lightning/reporting/templates").iterdir()}
    assert templates
    assert templates <= names
    assert not any(name.startswith(("tests/", "data/", "logs/")) for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    documents = {path.name for path in ROOT.glob("*.md")} | {"CITATION.cff", "LICENSE", "Makefile"}
    assert configs | documents | {"cifar_lightning/data/digits.npz"} <= inside


def test_the_bounds_exclude_the_releases_that_are_known_to_be_bad():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (lightning,) = [line for line in project["dependencies"] if line.startswith("lightning")]
    assert "!=2.6.2" in lightning
    assert "!=2.6.3" in lightning
    assert project["requires-python"] == ">=3.11,<3.14"


def test_ci_runs_each_python_that_the_package_is_for():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert jobs["check"]["strategy"]["matrix"]["python"] == named == ["3.11", "3.12", "3.13"]


def test_each_place_that_contributing_names_exists():
    places = re.findall(r"`((?:[\w.]+/)+[\w.]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(places) > 30
    assert [
        place for place in places if not any((base / place).exists() for base in (ROOT, ROOT / "cifar_lightning"))
    ] == []


def test_make_help_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert {"demo", "test", "test-all", "dashboard", "help"} <= {line.split()[0] for line in done.stdout.splitlines()}
