"""What the configs of sweeps compute: `${job_folder:}`, `${jobs_at_once:}`, `${gpus_a_job:}`."""

import warnings

from omegaconf import OmegaConf

from cifar_lightning.config.compose import register_resolvers
from cifar_lightning.sweeps.folders import job_folder
from cifar_lightning.sweeps.parallel import jobs_at_once, visible_gpus


def register() -> None:
    """Make them known in this process."""
    # Our conf/hydra/launcher/*.yaml have the names that the launchers' own configs have, on purpose.
    warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema", category=UserWarning)
    # Where a sweep's folder can't be made, that ends the command anyway.
    warnings.filterwarnings("ignore", message="Callback Progress.on_multirun_start raised", category=UserWarning)
    register_resolvers()
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)
    OmegaConf.register_new_resolver("gpus_a_job", lambda: min(1, len(visible_gpus())), replace=True)
