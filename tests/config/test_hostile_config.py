"""What a person (or a script of theirs) types may be anything: one clear line, and no secret in any file."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from cifar_lightning.config.checks import compose_checked
from cifar_lightning.errors import UserError

MARKER = "marker-of-a-secret-value"
QUICK = ["data=digits", "model=cnn2", "augmentation=none", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]
DEEP = 60 * "{a:" + "1" + 60 * "}"


@pytest.mark.parametrize(
    "typed",
    [
        ["data.root='${data.root}'"],
        ["optimizer.lr='${optimizer.momentum}'", "optimizer.momentum='${optimizer.lr}'"],
        ["seed='${seed}'"],
        ["+a='${.b}'", "+b='${.a}'", "task_name='${a}'"],
        ["data.root='${no_such_resolver:x}'"],
        ["data.root='${oc.env:NO_SUCH_VARIABLE}'"],
        ["data.root='${oc.decode:\"[\"}'"],
        ["data.root='${'"],
        ["seed=1e999"],
        ["seed=" + "9" * 5000],
        ["seed=nan"],
        ["optimizer.lr=nan"],
        ["optimizer.lr=inf"],
        ["data.batch_size=" + "9" * 400],
        ["trainer.max_epochs=1e400"],
        ["data.val_size=1e400"],
        ["data=[[[[[["],
        ["+x=" + "[" * 500 + "]" * 500],
        ["data.batch_size=" + DEEP],
        ["data={a:1}"],
        ["model=../../../etc/passwd"],
        ["model=/etc/passwd"],
        ["=1"],
        ["seed=\x00"],
        ["seed=\x1b[31m"],
        ["\udcff=1"],
    ],
    ids=lambda typed: ascii(typed[0][:30]),
)
def test_hostile_values_are_refused_in_one_line(typed):
    with pytest.raises(UserError) as caught:
        compose_checked(typed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    key=st.sampled_from(["seed", "data.root", "optimizer.lr", "model.init", "model", "+x", "tags", "trainer.devices"]),
    value=st.one_of(
        st.text(max_size=12),
        st.text("[]{}:,'\"$\\ =0a.", max_size=12),
        st.sampled_from(["${seed}", "${..}", "${oc.env:X}", "???", "null", "[1,{a:2}]", "0x", "1_0", "${x:${x}}"]),
    ),
)
def test_any_value_composes_or_is_refused_in_one_line(key, value):
    try:
        compose_checked([f"{key}={value}"])
    except UserError as error:
        message = str(error)
        if "\n" in message:
            raise


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["+callbacks.x._target_=os.getpid"], "callbacks.x: expected a Lightning Callback, got int"),
        (["+callbacks.x._target_=os.no_such_thing"], "os.no_such_thing"),
        (["+callbacks.x._target_=os.system"], "can't build os.system"),
        (["+callbacks.x={a:1}"], "callbacks.x has settings but no _target_"),
        (["+logger.x._target_=os.getpid"], "os.getpid: expected a Lightning Logger, got int"),
        (["model._target_=os.getpid"], "os.getpid"),
        (["optimizer._target_=os.getpid"], "os.getpid"),
        (["scheduler._target_=os.getpid"], "os.getpid"),
    ],
)
def test_a_target_that_makes_something_else_is_one_clear_line(command, typed, message):
    outcome = command(*QUICK, "logger={}" if "+logger" in typed[0] else "logger=none", *typed)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


@pytest.mark.parametrize(
    "text",
    [
        "x: !!python/object/apply:os.mkdir [trap]",
        "x: !!python/name:os.mkdir",
        "x: &a [*a]",
        "x: [1,",
        "\tx: 1",
        "x: 1\nx: 2",
        "- a\n- b",
        "\x00",
        "x: ${",
        "defaults: [{override /optimizer: nowhere}]",
    ],
)
def test_a_config_file_with_anything_in_it_runs_nothing(command, text):
    Path("own/experiment").mkdir(parents=True)
    Path("own/experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    outcome = command("--config-dir=own", "experiment=mine", *QUICK)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert {path.name for path in command.folder.iterdir()} == {"own"}


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("GITHUB_TOKEN", "+note='${oc.env:NAME}'"),
        ("DATABASE_URL", "tags=['${oc.env:NAME,x}']"),
        ("GH_PAT", "data.root='${oc.env: NAME}'"),
        ("MYSQL_PWD", """+note='${oc.env:"NAME"}'"""),
        ("PASSWORD1", "+note='${ oc.env : NAME }'"),
        ("HOME", "+note='${oc.decode:${oc.env:NAME}}'"),
        ("GH_PAT", "+note='a ${oc.env:NO_SUCH_VARIABLE,${oc.env:NAME}}'"),
    ],
)
def test_a_variable_of_the_environment_needs_a_word_of_consent(monkeypatch, name, typed):
    monkeypatch.setenv(name, MARKER)
    typed = typed.replace("NAME", name)
    with pytest.raises(UserError, match=r"allow it with trust_env=\[") as caught:
        compose_checked([typed])
    assert MARKER not in str(caught.value)
    compose_checked([typed, f"trust_env=[{name},NO_SUCH_VARIABLE]"])


def test_a_variable_whose_name_is_computed_is_refused(monkeypatch):
    monkeypatch.setenv("GH_PAT", MARKER)
    with pytest.raises(UserError, match="environment variable"):
        compose_checked(["+which=GH_PAT", "+note='${oc.env:${which}}'"])


def test_values_of_the_environment_are_in_no_file_unless_the_config_names_their_variable(command, monkeypatch):
    for name in ("WANDB_API_KEY", "MY_PASSWORD", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, f"{MARKER}-{name}")
    monkeypatch.setenv("AUTHOR", "the-name-of-a-colleague")
    outcome = command(*QUICK, "+note='${oc.env:AUTHOR}'", "trust_env=[AUTHOR]")
    assert outcome.code == 0, outcome.err
    written = [file.read_bytes() for file in command.folder.rglob("*") if file.is_file()]
    assert len(written) > 10
    assert not any(MARKER.encode() in content for content in written)
    assert MARKER not in outcome.out + outcome.err
    (run,) = command.runs()
    assert "the-name-of-a-colleague" in (run / "config.yaml").read_text()  # as documented: it is a value like others


def test_tensorboard_listens_on_this_machine_only(command):
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    starts = [line for line in makefile.splitlines() if "tensorboard" in line and "--logdir" in line]
    assert starts
    assert all("--host localhost" in line for line in starts)
    outcome = command(*QUICK)
    printed = [line for line in outcome.out.splitlines() if "tensorboard --logdir" in line]
    assert printed
    assert all(line.endswith("--host localhost") for line in printed)


def test_releases_known_to_be_bad_are_excluded():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (spec,) = (r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "lightning")
    assert [v for v in ("2.6.1", "2.6.2", "2.6.3", "2.6.6") if v in spec] == ["2.6.1", "2.6.6"]
