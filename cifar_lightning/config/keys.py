"""One table of what each config key affects, for resuming, sweeps, summaries, searches and folder names."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Decides:
    """What a key affects, and what follows from that.

    what: "result" (the trained network), "speed", or "place" (where a run is stored and how it is monitored).
    resume: may change when a run is resumed. folds: runs that differ only in it share a row of a summary.
    compared: jobs of a sweep that differ in it are different jobs. searched: a search may vary it.
    named: appears in the name of a run's folder.
    """

    what: str
    resume: bool
    folds: bool
    compared: bool
    searched: bool
    named: bool


RESULT = Decides("result", resume=False, folds=False, compared=True, searched=True, named=True)
SPEED = Decides("speed", resume=True, folds=True, compared=False, searched=False, named=True)
PLACE = Decides("place", resume=True, folds=True, compared=False, searched=False, named=False)
# Length of training: a run may be extended, which makes it another experiment.
LENGTH = replace(RESULT, resume=True)
# Devices: the global batch stays the same, but several processes sum in another order.
PROCESSES = replace(SPEED, folds=False, compared=True)
# What to do with a trained network.
STAGE = replace(RESULT, resume=True, folds=True, searched=False)

# Keys whose values are paths, as a regular expression.
PATHS = (
    r"ckpt_path|teacher\.ckpt_path|data\.root|data\.labels_file|paths\.\w+|hydra\.run\.dir|hydra\.sweep\.dir"
    r"|model\.pretrained(?!=(?:true|false)$)"
)
# A key covers all keys below it without an entry of their own; `group=choice` is one choice of a group.
KEYS: dict[str, Decides] = {
    "task_name": PLACE,
    "tags": PLACE,
    "seed": replace(RESULT, folds=True),  # runs that differ only in the seed are repetitions
    "train": STAGE,
    "test": STAGE,
    "test_tta": replace(STAGE, folds=False),
    "ckpt_path": replace(PLACE, compared=True),  # a job that starts from other weights is another job
    "trust": PLACE,
    "trust_env": PLACE,
    "module": RESULT,
    "loss": RESULT,
    "ema_decay": RESULT,
    "swa_start": RESULT,
    "teacher": RESULT,
    "compile": SPEED,
    "channels_last": SPEED,
    "optimized_metric": PLACE,
    "published_test_acc": PLACE,
    "paths": PLACE,
    "logger": PLACE,
    "hydra": PLACE,
    "choices": PLACE,  # config files, identified by the keys that they set
    "overrides": PLACE,
    "experiment": replace(RESULT, folds=True),
    "debug": replace(RESULT, searched=False),
    "data": RESULT,
    "data.root": PLACE,
    "data.verify": PLACE,
    "data.sealed": replace(STAGE, resume=False),  # who resumes or tests a run can't break its seal
    "data.source": replace(SPEED, named=False),  # both read the same arrays
    "data.num_workers": replace(SPEED, named=False),
    "data.pin_memory": SPEED,
    "data.persistent_workers": SPEED,
    "data.eval_batch_size": SPEED,
    # The trials of a search are compared on one validation split.
    "data.val_size": replace(RESULT, searched=False),
    "data.split_seed": replace(RESULT, searched=False),
    # Runs that differ only in the fold are repetitions.
    "data.fold": replace(RESULT, folds=True, searched=False),
    "data.folds": replace(RESULT, searched=False),
    "data.variant_seed": replace(RESULT, searched=False),
    "model": RESULT,
    # Set from the data set.
    "model.num_classes": PLACE,
    "model.in_channels": PLACE,
    "model.input_size": PLACE,
    "activation": RESULT,
    "augmentation": RESULT,
    "optimizer": RESULT,
    "scheduler": RESULT,
    "callbacks": RESULT,
    "callbacks.progress_bar": PLACE,
    "callbacks.model_summary": PLACE,
    "callbacks.dashboard": PLACE,
    "callbacks.learning_rate_monitor": PLACE,
    "callbacks.last_checkpoint": PLACE,
    "callbacks.finite_loss": PLACE,
    "callbacks.direct_steps": SPEED,
    "trainer": RESULT,
    "trainer=cpu": SPEED,
    "trainer=gpu": SPEED,
    "trainer=mps": SPEED,
    "trainer.accelerator": SPEED,
    "trainer.devices": PROCESSES,
    "trainer.devices=1": SPEED,
    "trainer.num_nodes": PROCESSES,
    "trainer.strategy": PROCESSES,
    "trainer.precision": replace(RESULT, folds=True),  # a summary mentions it in its notes
    "trainer.max_epochs": LENGTH,
    "trainer.max_steps": LENGTH,
    "trainer.max_time": LENGTH,
    "trainer.limit_test_batches": LENGTH,
    "trainer.deterministic": SPEED,
    "trainer.benchmark": SPEED,
    "trainer.detect_anomaly": SPEED,
    "trainer.profiler": PLACE,
    "trainer.log_every_n_steps": PLACE,
    "trainer.print_every": PLACE,
    "trainer.num_sanity_val_steps": PLACE,
    "trainer.default_root_dir": PLACE,
}


def decides(override: str) -> Decides:
    """The entry of a key, such as `trainer.devices`, or of an override, such as `+trainer.devices=1`.

    A key that is not in the table is the user's own and affects the result.
    """
    key, _, value = override.lstrip("+~").replace("/", ".").partition("=")
    if entry := KEYS.get(f"{key}={value}"):
        return entry
    while key not in KEYS and "." in key:
        key = key.rpartition(".")[0]
    return KEYS.get(key, RESULT)
