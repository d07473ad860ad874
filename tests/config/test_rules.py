from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.hints import all_keys, plain_or_raw
from cifar_lightning.config.rules import RULES


def test_every_rule_is_about_a_key_that_some_choice_has():
    known = set()
    choices = (
        "scheduler=cosine",
        "scheduler=plateau",
        "scheduler=wsd",
        "scheduler=cosine_restarts",
        "model=torchvision",
        "model=timm",
        "model=cnn2",
        "model=speednet",
        "model=vit",
        "optimizer=muon",
    )
    for overrides in ([], *([choice] for choice in choices)):
        known |= set(all_keys(plain_or_raw(compose_checked(overrides))))
    assert set(RULES) <= known
