"""The command evaluate: every metric, table and figure of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands import card
from cifar_lightning.commands.parser import (
    ACCELERATOR,
    CHECKPOINTS,
    ELSEWHERE,
    LEDGER,
    Command,
    Given,
    Key,
    beside,
    output_path,
)
from cifar_lightning.config.signatures import choices_of
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting import ledger
from cifar_lightning.runs.folders import command, folder_of

COMMAND = Command(
    "evaluate",
    "Test a checkpoint: every metric of the training run's test stage, predictions.csv and figures.\n"
    "The data settings, the split and the precision are those of the checkpoint's run. Several checkpoints are an\n"
    "ensemble, the mean of their probabilities; each one's figures, and how much they disagree, are shown as well.\n"
    "A look at the test set is noted in test_ledger.jsonl, beside the logs.",
    keys={
        **CHECKPOINTS,
        "split": Key("the split that is tested", "test", ("val", "test")),
        "tta": Key("average over mirrored, shifted views", "none", choices_of("cifar_lightning.training.tta", "TTA")),
        "exclude": Key("a file of test images to leave out, such as test_near_duplicates.json of `data audit`"),
        "unseal": Key("why the test set of a run with data.sealed=true is opened; goes into the test ledger"),
        "out": Key("a folder for the results, if not the one beside the checkpoint"),
        "precision": Key("such as 32-true, if not that of the training run"),
        **card.KEYS,
        **ACCELERATOR,
        **ELSEWHERE,
        **LEDGER,
    },
    bare="ckpt_path",
    several=("ckpt_path",),
    examples={
        "ckpt_path=best.ckpt": "the test set; results in best_test/ beside the checkpoint",
        "ckpt_path=best.ckpt split=val tta=flip_shift out=results": "the validation split, six views of each image",
        "ckpt_path=best.ckpt exclude=logs/audit/NAME/test_near_duplicates.json": "without copies of training images",
        "ckpt_path=logs/train/runs/RUN unseal='the table of our paper'": "opens a run with data.sealed=true",
        "ckpt_path=logs/train/runs/RUN data.root=/data": "a run's best checkpoint; the data was moved",
        "logs/train/multiruns/SWEEP/seed=*": "an ensemble of a sweep's runs; also written 'ckpt_path=[RUN,RUN]'",
        "ckpt_path=logs/train/runs/RUN card=true": "a score card: calibration, corruptions, attacks, cost and more",
    },
)


def run(given: Given) -> int:
    if given["card"] not in (None, "false"):
        return card.run(given)
    unused = [name for name in card.KEYS if name != "card" and any(w.startswith(f"{name}=") for w in given["typed"])]
    if unused:
        raise UserError(f"{unused[0]} has no effect without card=true")
    checkpoints, split, tta = given["ckpt_path"], given["split"], given["tta"]
    if given["exclude"] and split != "test":
        raise UserError(f"exclude={given['exclude']} is for the test set: leave out split={split}")
    if given["unseal"] and split != "test":
        raise UserError(f"unseal={given['unseal']} is for the test set: leave out split={split}")
    ending = "_".join(["", split] + [tta] * (tta != "none") + ["excluding"] * bool(given["exclude"]))
    test_ledger = ledger.ledger_of(checkpoints[0], given["paths.log_dir"])
    out = output_path(Path(given["out"] or beside(checkpoints, ending)).expanduser(), folder=True)

    # These import torch, which help and errors do without.
    from rich import get_console

    from cifar_lightning.checkpoints.load import load_data
    from cifar_lightning.checkpoints.members import check_same_validation, load_members
    from cifar_lightning.console import adopt_lightning_loggers
    from cifar_lightning.data.loader import Split
    from cifar_lightning.evaluation import calibration, ensemble
    from cifar_lightning.evaluation.looks import check_seal, note_look
    from cifar_lightning.evaluation.testing import build_evaluator, chosen_split, kept_images, members_logits
    from cifar_lightning.reporting import files, tables
    from cifar_lightning.runs import record
    from cifar_lightning.training.metrics import accuracy_by_frequency, test_metrics

    adopt_lightning_loggers()
    members = load_members(checkpoints, given["trust"])
    classifier, several = members[0].classifier, len(members) > 1
    judged = [folder_of(checkpoint) or checkpoint for checkpoint in checkpoints]
    if split == "val":
        check_same_validation(members)
    else:
        for member, run_folder in zip(members, judged, strict=True):
            check_seal(member.classifier.config, test_ledger, run_folder, given["unseal"])
        ledger.check_writable(test_ledger)
    trainer = build_evaluator(classifier.config, given["accelerator"], given["precision"])
    data = load_data(classifier.config, given["data.root"], checkpoints[0], given["trust"])
    part = chosen_split(data, split, classifier.class_names)
    kept = kept_images(part, data.name, Path(given["exclude"]).expanduser() if given["exclude"] else None)
    typed, look = command("evaluate", *given["typed"]), {}
    if split == "test":
        config, why = {**classifier.config, "test_tta": tta}, given["unseal"]
        config |= {"members": [*map(str, judged[1:])]} if several else {}
        look = note_look(test_ledger, config, data, command=typed, run=judged[0], images=len(kept), unseal=why)
    each = members_logits(trainer, [m.classifier for m in members], part, data.eval_batch_size, tta, given["precision"])
    logits = ensemble.log_mean_probabilities(each.double()) if several else each[0]
    of_all = (logits.argmax(1) == part.labels).float().mean().item()
    excluded = len(part) - len(kept)
    part, logits, each = Split(part.images[kept], part.labels[kept]), logits[kept], each[:, kept]

    metrics = test_metrics(logits, part.labels, classifier.class_names)
    metrics |= accuracy_by_frequency(metrics, data.train.labels)
    drawn = record.draw_test(metrics, part.images, logits, part.labels, classifier.class_names)
    confidences, predictions = logits.softmax(1).max(1)
    correct = predictions == part.labels
    drawn["reliability"] = calibration.reliability_diagram(confidences, correct, metrics["test/ece"])
    drawn["confidence"] = calibration.confidence_histogram(confidences, correct)
    evaluation = {
        **{key.replace("test/", f"{split}/"): value for key, value in metrics.items()},
        **({"test/acc_with_excluded": of_all, "excluded": excluded} if given["exclude"] else {}),
        "images": len(part),
        "tta": tta,
        "parameters": sum(p.numel() for member in members for p in member.classifier.network.parameters()),
        "checkpoint": list(map(str, checkpoints)) if several else str(checkpoints[0]),
        **{key: classifier.config.get("choices", {}).get(key) for key in ("experiment", "model")},
        "seed": classifier.config.get("seed"),
        "command": typed,
        **look,
        **record.provenance(trainer, data),
    }
    if several:
        evaluation["members"] = ensemble.member_metrics(members, each, part.labels, split)
        evaluation |= ensemble.disagreement(each)
    record.write_test(out, logits, part.labels, classifier.class_names, kept.tolist())
    record.save_figures(out, drawn)
    files.write_json(out / "evaluation.json", evaluation)

    tested = f"ensemble of {len(members)}" if several else checkpoints[0].name
    title = f"{len(part):,} images of the {'validation split' if split == 'val' else 'test set'}"
    title += f", {excluded:,} left out" if given["exclude"] else ""
    get_console().print(tables.rich_table(tables.result_rows(evaluation | {"checkpoint": tested}), title))
    if several:
        get_console().print(tables.rich_table(ensemble.ensemble_rows(evaluation, split), "Members"))
        say(
            f"Two members disagree on {tables.percent(evaluation['disagreement'])} of the images; their Jensen-Shannon "
            f"divergence is {evaluation['js_divergence']:.4f} nats.\n"
        )
    get_console().print(tables.rich_table(tables.class_rows(metrics), "Accuracy per class"))
    for note in ledger.looks([(out, evaluation)], test_ledger):
        say(note)
    for path in sorted((out / "figures").glob("*.png")):
        say(f"figure       {path}")
    say(f"metrics      {out / 'evaluation.json'}")
    say(f"predictions  {out / 'predictions.csv'}")
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
