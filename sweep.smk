# The sweep of chapters 06 to 08 as a graph: see support/unitcell/environments/sweep.py. Run it through `unitcell sweep`.
import shlex
import sys

from unitcell.environments import sweep
from unitcell.book.workflow import load_profile, threads_per_job

profile = load_profile(config.get("profile", "book"))
settings = sweep.chosen_settings(str(config.get("settings", "")).split(":") if config.get("settings") else ())
jobs = sweep.jobs(profile, settings, tuple(range(int(config.get("seeds", len(sweep.SEEDS))))))
UNITCELL = f"{sys.executable} -m unitcell"


rule all:
    input:
        [name for job in jobs for name in job.outputs],


for job in jobs:

    rule:
        name:
            job.name
        input:
            job.reads,
        output:
            job.outputs,
        params:
            recipe=job.recipe,
            arguments=shlex.join(job.arguments),
        threads: threads_per_job()
        shell:
            f"{UNITCELL} chapter {{params.arguments}} 2>&1"
