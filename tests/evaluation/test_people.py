import numpy as np
import pytest
import torch

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError
from cifar_lightning.evaluation import people
from cifar_lightning.evaluation.people import counts_of, people_measures

COUNTS = torch.tensor([[50, 0, 0], [0, 40, 10], [20, 0, 31], [0, 0, 51]])


def test_agreement_is_that_of_the_definition():
    logits = torch.tensor([[2.0, 0, 0], [0, 1, 0.5], [1, 0, 0], [0, 0, 3]])
    labels = torch.tensor([0, 1, 0, 1])
    found = people_measures(logits, labels, COUNTS)
    odds = np.exp(logits.numpy())
    votes = COUNTS.numpy() / COUNTS.numpy().sum(1, keepdims=True)
    assert found["cross_entropy_people"].value == pytest.approx(
        -(votes * np.log(odds / odds.sum(1, keepdims=True))).sum(1).mean()
    )
    own = [-sum(p * np.log(p) for p in row if p) for row in votes]
    assert found["entropy_people"].value == pytest.approx(np.mean(own))
    assert found["acc_majority"].value == 0.75  # people see class 2 in the third image
    assert (found["acc_hard"].value, found["acc_hard"].images) == (1.0, 2)
    assert found["acc_easy"].value == 0.5


def test_votes_are_read_for_the_official_test_set_only(tmp_path, monkeypatch):
    split = Split(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, 2]))
    counts = np.concatenate([COUNTS.numpy(), np.zeros((4, 7), np.int64)], 1)
    with pytest.raises(UserError, match=r"there is no cifar10h-counts.npy"):
        counts_of(tmp_path, split)
    np.save(tmp_path / people.FILE, counts)
    with pytest.raises(UserError, match="official test set of CIFAR-10 in its order, which this is not"):
        counts_of(tmp_path, split)
    monkeypatch.setattr(people, "TEST_SET", people.test_set(split))
    assert torch.equal(counts_of(tmp_path, split)[:, :3], COUNTS)
    for wrong, message in (
        (counts[::-1], "another order"),
        (counts[:3], "votes are integers"),
        (counts / 2, "float64"),
    ):
        np.save(tmp_path / people.FILE, wrong)
        with pytest.raises(UserError, match=message):
            counts_of(tmp_path, split)
