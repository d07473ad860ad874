"""Between the jobs of a sweep, log how many are done and estimate the time left."""

import logging
import time
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar_lightning.reporting.tables import duration
from cifar_lightning.runs.memory import give_memory_back
from cifar_lightning.sweeps.overrides import jobs_of

log = logging.getLogger(__name__)


class Progress(Callback):
    """A Hydra callback. In the processes of a launcher, where the sweep's size is unknown, it logs nothing."""

    start = 0.0
    jobs = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.start, self.jobs = time.time(), len(jobs_of(config.hydra.overrides.task))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None  # Hydra would keep them until the end of the sweep
        if config.hydra.mode == RunMode.MULTIRUN:
            give_memory_back()
            done = config.hydra.job.num + 1
            if done < self.jobs:
                left = (time.time() - self.start) / done * (self.jobs - done)
                log.info("%d/%d jobs done, about %s left", done, self.jobs, duration(left))
