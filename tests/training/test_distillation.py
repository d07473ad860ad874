import numpy as np
import pytest
import torch
from helpers.records import checkpoint
from helpers.small import SGD, Batches, normalized, small_classifier, small_network, small_trainer
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from cifar_lightning import api
from cifar_lightning.reporting.files import read_json
from cifar_lightning.training.distillation import Teacher

TEMPERATURE, ALPHA = 3.0, 0.7
SMALL = ["data=digits", "model=cnn2", "trainer.max_epochs=1"]


def teacher_network(seed):
    torch.manual_seed(seed)
    return small_network().apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_training_minimizes_the_papers_loss(seeds):
    """Equation 1 and section 2 of Hinton et al. 2015: cross entropy with the softened teacher, times T squared."""
    teachers = [small_classifier(teacher_network(seed)) for seed in seeds]
    classifier = small_classifier(teacher=Teacher(teachers, TEMPERATURE, ALPHA), optimizer=SGD)
    small_trainer().fit(classifier, Batches())
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        for images, labels in Batches():
            with torch.no_grad():
                soft = [(t.network(normalized(images)) / TEMPERATURE).softmax(1) for t in teachers]
            logits = network(normalized(images))
            distance = -(sum(soft) / len(soft) * (logits / TEMPERATURE).log_softmax(1)).sum(1).mean()
            loss = (1 - ALPHA) * cross_entropy(logits, labels) + ALPHA * TEMPERATURE**2 * distance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_close(classifier.network.state_dict(), network.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_teacher_is_neither_trained_nor_saved():
    teacher = small_classifier(teacher_network(1))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = small_classifier(teacher=Teacher([teacher], 4.0, 0.9))
    small_trainer(max_epochs=1).fit(student, Batches())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert set(student.state_dict()) == {f"network.{name}" for name in small_network().state_dict()}


def test_a_student_of_a_run_has_it_in_its_record(command):
    assert command(*SMALL, "hydra.run.dir=one,a=1").code == 0
    assert command(*SMALL, "teacher=one,a=1", "teacher.alpha=0.5", "hydra.run.dir=two").code == 0
    (taught,) = read_json("two/metrics.json")["teachers"]
    teacher = read_json("one,a=1/metrics.json")
    assert taught == {
        "ckpt_path": "one,a=1",
        "parameters": teacher["parameters"],
        "val/acc": teacher["val/acc"],
        "test/acc": teacher["test/acc"],
    }
    weights = [checkpoint(command.folder / folder)["state_dict"] for folder in ("one,a=1", "two")]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert command("evaluate", "ckpt_path=two").code == 0  # a student needs no teacher
    assert api.compose([*SMALL, "teacher=one"]).teacher.ckpt_path == "one"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["teacher=nothing"], "error: teacher=nothing: there is no such file"),
        (["teacher=run", "data=npz", "data.root=other.npz"], "another classes than data=npz"),
        (["teacher=run", "teacher.temperature=0"], "teacher.temperature=0: must be"),
        (["teacher=run", "teacher.alpha=2"], "teacher.alpha=2: must be"),
    ],
)
def test_a_teacher_that_can_not_teach_is_refused_in_one_line(command, typed, message):
    images, labels = np.zeros((200, 32, 32, 3), np.uint8), np.arange(200) % 3
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(command.folder / "other.npz", **arrays)
    if typed[0] == "teacher=run" and len(typed) == 3:
        assert command(*SMALL, "hydra.run.dir=run").code == 0
    before = sorted(command.folder.rglob("config.yaml"))
    outcome = command("model=cnn2", *(["data=digits"] if len(typed) < 3 else []), *typed)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert sorted(command.folder.rglob("config.yaml")) == before
