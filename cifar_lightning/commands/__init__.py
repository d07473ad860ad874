"""The commands, a short file each, and their parser."""

# `python -m cifar_lightning NAME`, and the line about it in --help.
COMMANDS = {
    "evaluate": "every metric, table and figure of a checkpoint",
    "predict": "labels for images of your own",
    "export": "a checkpoint as ONNX, a program of torch or plain weights",
    "compare": "is one better than the other: interval, p-value, verdict, or the seeds that would decide",
    "summarize": "a table of runs, seeds folded into mean and standard deviation",
    "verify": "a run, or a table of runs, trained again and compared with its record",
    "report": "an HTML page of a run or of many",
    "lr_find": "a learning rate, by a few steps with rising rates",
    "batch_size_find": "the batch size from which training gets no faster, and the largest that fits",
    "search": "good hyperparameters, by Optuna",
    "data": "what is in the data, and leaks of its split; `data audit`: near-duplicates, wrong labels",
    "models": "every network with its parameters and multiply-adds",
}
