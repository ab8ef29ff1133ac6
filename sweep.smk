# The sweep of chapters 06 to 08 as a graph: see support/unitcell/environments/sweep.py. Run it through `unitcell sweep`.
import shlex
import sys

from unitcell.environments import sweep
from unitcell.book.workflow import load_profile, threads_per_job

profile = load_profile(config.get("profile", "book"))
settings = sweep.chosen_settings(str(config.get("settings", "")).split(":") if config.get("settings") else ())
jobs = sweep.jobs(profile, settings, int(config.get("seeds", len(sweep.SEEDS))))
cuts = sweep.cuts(profile, settings)
most = int(config.get("most", sweep.SUB_IMAGES))
UNITCELL = f"{sys.executable} -m unitcell"
DONE = f"$(find {sweep.sweep_folder(profile)} -name provenance.json | wc -l)"


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
        priority:
            job.priority
        threads: threads_per_job()
        shell:
            f"echo \"[sweep] {DONE} of {len(jobs)} runs done; next {{rule}}\"; {UNITCELL} chapter {{params.arguments}} 2>&1"


for cut in cuts:

    rule:
        name:
            cut.target.replace("/", "_").replace("-", "_")
        input:
            cut.source,
        output:
            cut.target,
        params:
            window_px=cut.window_px,
            most=most,
        threads: threads_per_job()
        run:
            from unitcell.environments.sweep_cuts import narrow

            narrow(input[0], output[0], params.window_px, params.most)
