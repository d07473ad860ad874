"""What a sweep says between its jobs: how many are done, and about how long the others take."""

import logging
import math
import time
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar_lightning.config.compose import parse_overrides
from cifar_lightning.reporting.tables import duration
from cifar_lightning.runs.memory import give_memory_back

log = logging.getLogger(__name__)


class Progress(Callback):
    """Hydra's callback at a sweep's start and at the end of each job that runs in this process."""

    start = 0.0
    jobs = 0  # in all

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweeps = [o for o in parse_overrides(config.hydra.overrides.task) if o.is_discrete_sweep()]
        self.start, self.jobs = time.time(), math.prod(len(list(o.sweep_string_iterator())) for o in sweeps)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None  # Hydra would keep them until the sweep's end
        if config.hydra.mode == RunMode.MULTIRUN:
            give_memory_back()
            done = config.hydra.job.num + 1
            if 0 < done < self.jobs:  # in a launcher's other process nothing is known of the whole
                left = (time.time() - self.start) / done * (self.jobs - done)
                log.info("%d/%d jobs done, about %s left", done, self.jobs, duration(left))
