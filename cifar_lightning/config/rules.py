"""The valid values of config keys. Keys without a rule must keep the type of their default.

Choices that one of our own classes takes are in its signature instead: see signatures.py.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cifar_lightning.config.methods import is_size_schedule
from cifar_lightning.config.signatures import choices_of
from cifar_lightning.data.sets import SETS


@dataclass(frozen=True)
class Rule:
    """The valid values of a key, as a predicate and in words."""

    allows: Callable[[Any], bool]
    words: str


def integer(low: int, words: str = "", high: int | None = None) -> Rule:
    words = words or (f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}")
    return Rule(lambda v: type(v) is int and v >= low and (high is None or v <= high), words)


MAX_WORKERS = 256  # processes or data workers on one machine; more is a typo


def share(words: str = "a number from 0 to 1") -> Rule:
    return Rule(lambda v: type(v) in (int, float) and 0 <= v <= 1, words)


def below_1() -> Rule:
    return Rule(lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to below 1")


def positive(words: str = "a number above 0") -> Rule:
    return Rule(lambda v: type(v) in (int, float) and 0 < v < math.inf, words)


def not_negative() -> Rule:
    return Rule(lambda v: type(v) in (int, float) and 0 <= v < math.inf, "a number of at least 0")


def choice(*values: Any) -> Rule:
    return Rule(
        lambda v: any(type(v) is type(c) and v == c for c in values),
        "one of " + ", ".join(dict.fromkeys(map(str, values))),
    )


def optional(rule: Rule) -> Rule:
    return Rule(lambda v: v is None or rule.allows(v), f"{rule.words}, or null")


def _is_percentage(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100


BOOLEAN = Rule(lambda v: type(v) is bool, "true or false")
TEXT = Rule(lambda v: type(v) is str and v != "", "text that is not empty")
COUNT_OR_SHARE = Rule(
    lambda v: (type(v) is int and v >= 0) or (type(v) is float and 0 <= v <= 1), "a count, or a share from 0.0 to 1.0"
)
COUNT_OR_SHARE_ABOVE_0 = Rule(
    lambda v: COUNT_OR_SHARE.allows(v) and v > 0, "a count of at least 1, or a share up to 1.0"
)
LENGTH = Rule(lambda v: type(v) is int and (v == -1 or v >= 1), "an integer of at least 1, or -1 for no limit")
PUBLISHED = Rule(
    lambda v: all(_is_percentage(one) for one in (v.values() if type(v) is dict else [v])),
    "an accuracy in %, or one for each checkpoint, such as {best: 86.9, last: 86.5}",
)
DURATION = Rule(
    lambda v: type(v) is str and bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", v)),
    "days:hours:minutes:seconds, such as 00:01:30:00",
)
RULES: dict[str, Rule] = {
    "task_name": Rule(
        lambda v: type(v) is str and bool(re.fullmatch(r"[\w.-]+", v)), "a folder name of letters, digits, _, . and -"
    ),
    "seed": Rule(lambda v: type(v) is int and 0 <= v < 2**32, "an integer from 0 to 4294967295"),
    "train": BOOLEAN,
    "test": BOOLEAN,
    "ckpt_path": optional(TEXT),
    "tags": Rule(
        lambda v: type(v) is list and all(type(tag) is str for tag in v), "a list of words, such as [first,try]"
    ),
    "trust_env": Rule(
        lambda v: type(v) is list and all(type(name) is str for name in v),
        "a list of environment variables, such as [AUTHOR]",
    ),
    "trust": Rule(
        lambda v: all(type(name) is str for name in v) if type(v) is list else type(v) is str,
        "a module name, or a list of them, such as [my_models,my_losses]",
    ),
    "loss.label_smoothing": below_1(),
    "published_test_acc": optional(PUBLISHED),
    "ema_decay": optional(Rule(lambda v: type(v) is float and 0 < v < 1, "a number between 0 and 1")),
    "swa_start": optional(below_1()),
    "teacher.ckpt_path": optional(
        Rule(lambda v: v != "" and v != [] and type(v) in (str, list), "a run or checkpoint, or a list of them")
    ),
    "teacher.temperature": positive(),
    "teacher.alpha": share(),
    "compile": BOOLEAN,
    "channels_last": BOOLEAN,
    "data.name": choice(*SETS),
    "data.root": TEXT,
    "data.verify": BOOLEAN,
    "data.sealed": BOOLEAN,
    "data.val_size": optional(COUNT_OR_SHARE),
    "data.labels_file": optional(TEXT),
    "data.labels_key": optional(TEXT),
    "data.split_seed": integer(0),
    "data.folds": optional(integer(2)),
    "data.fold": integer(0),
    "data.train_size": optional(COUNT_OR_SHARE_ABOVE_0),
    "data.imbalance": optional(Rule(lambda v: type(v) in (int, float) and 1 <= v < math.inf, "a number of at least 1")),
    "data.label_noise": share(),
    "data.variant_seed": integer(0),
    "data.batch_size": integer(1),
    "data.eval_batch_size": integer(1),
    "data.drop_last": BOOLEAN,
    "data.size_schedule": optional(
        Rule(is_size_schedule, "pairs of a share of the training and a size in pixels, such as [[0.5,20],[0.8,28]]")
    ),
    "data.keep_hardest": optional(
        Rule(lambda v: type(v) in (int, float) and 0 < v <= 1, "a share of the images, above 0")
    ),
    "data.num_workers": optional(integer(0, high=MAX_WORKERS)),
    "data.pin_memory": optional(BOOLEAN),
    "data.persistent_workers": BOOLEAN,
    "model.channels": Rule(
        lambda v: type(v) is list and v != [] and all(type(n) is int and n > 0 for n in v),
        "a list of integers of at least 1, such as [32,64]",
    ),
    "model.name": TEXT,
    "model.logit_scale": optional(positive()),
    "model.image_size": optional(Rule(lambda v: type(v) is int and 1 <= v <= 1024, "an integer from 1 to 1024")),
    "model.layer_scale": optional(positive()),
    "model.pretrained": Rule(lambda v: type(v) in (bool, str) and v != "", "true, false, or a file of weights"),
    "model.stochastic_depth": below_1(),
    "optimizer.lr": positive(),
    "optimizer.weight_decay": not_negative(),
    "optimizer.momentum": not_negative(),
    "optimizer.decay_norms_and_biases": BOOLEAN,
    "optimizer.layer_decay": optional(
        Rule(lambda v: type(v) in (int, float) and 0 < v <= 1, "a share of the next layer's learning rate, above 0")
    ),
    "optimizer.sam_rho": optional(positive()),
    "optimizer.sam_adaptive": BOOLEAN,
    "optimizer.ns_steps": integer(1),
    "optimizer.sgd_lr": positive(),
    "optimizer.sgd_momentum": not_negative(),
    "optimizer.sgd_weight_decay": not_negative(),
    "scheduler.warmup_epochs": not_negative(),
    "scheduler.first_epochs": positive(),
    "scheduler.growth": Rule(lambda v: type(v) in (int, float) and 1 <= v < math.inf, "a number of at least 1"),
    "scheduler.decay": share(),
    "scheduler.end": Rule(lambda v: type(v) in (int, float) and 0 < v <= 1, "a share of the training, above 0"),
    "scheduler.patience": integer(0),
    "callbacks.last_checkpoint.every_minutes": optional(not_negative()),
    "callbacks.direct_steps.seconds": not_negative(),
    "callbacks.finite_loss.every_n_steps": integer(1),
    "trainer.accelerator": choice(*choices_of("cifar_lightning.training.precision", "Accelerator")),
    "trainer.precision": choice(*choices_of("cifar_lightning.training.precision", "Precision")),
    "trainer.max_epochs": optional(LENGTH),
    "trainer.min_epochs": optional(integer(0)),
    "trainer.max_steps": LENGTH,
    "trainer.max_time": optional(DURATION),
    "trainer.devices": Rule(
        lambda v: (
            (type(v) is int and (v == -1 or 1 <= v <= MAX_WORKERS))
            or (type(v) is list and v != [] and all(type(one) is int and one >= 0 for one in v))
        ),
        "a number of devices, a list of device indices, or -1 for all",
    ),
    "trainer.strategy": Rule(
        lambda v: type(v) is str and v.startswith(("auto", "ddp", "fsdp", "deepspeed", "single_device")),
        "auto, ddp or another of Lightning's strategies with one process per device",
    ),
    "trainer.num_nodes": integer(1),
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.gradient_clip_val": optional(not_negative()),
    "trainer.gradient_clip_algorithm": optional(choice("norm", "value")),
    "trainer.limit_train_batches": optional(COUNT_OR_SHARE_ABOVE_0),
    "trainer.limit_val_batches": optional(COUNT_OR_SHARE),
    "trainer.limit_test_batches": optional(COUNT_OR_SHARE),
    "trainer.overfit_batches": COUNT_OR_SHARE,
    "trainer.val_check_interval": optional(COUNT_OR_SHARE_ABOVE_0),
    "trainer.check_val_every_n_epoch": optional(integer(1)),
    "trainer.num_sanity_val_steps": integer(-1),
    "trainer.print_every": optional(COUNT_OR_SHARE),
    "trainer.log_every_n_steps": integer(1),
    "trainer.deterministic": Rule(lambda v: type(v) is bool or v == "warn", "true, false or warn"),
    "trainer.benchmark": optional(BOOLEAN),
    "trainer.detect_anomaly": BOOLEAN,
    "trainer.sync_batchnorm": BOOLEAN,
    "trainer.profiler": optional(choice("simple", "advanced", "pytorch", "xla")),
}
