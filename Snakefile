# The chapters as a graph: a chapter runs when its recipe (notebook, parameters, modules, data) or a file that it reads
# changed. The table and the recipe are in support/unitcell/book/workflow.py; run this through `unitcell build`.
import sys

from unitcell.book import pages
from unitcell.book.workflow import CHAPTERS, descendants, load_profile, threads_per_job

profile = load_profile(config.get("profile", "book"))
BOOK = str(profile.pages / "_build" / "html" / "index.html")
UNITCELL = f"{sys.executable} -m unitcell"


rule all:
    input:
        BOOK,


for chapter in CHAPTERS:

    rule:
        name:
            f"chapter_{chapter}"
        input:
            profile.inputs(chapter),
        output:
            profile.outputs(chapter),
        params:
            recipe=profile.recipe(chapter),
            chapter=chapter,
            folder=str(profile.folder(chapter)),
        threads: threads_per_job()
        priority: descendants(chapter)
        shell:
            f"{UNITCELL} chapter {{params.chapter}} --profile {profile.name} --out {{params.folder}} 2>&1"


rule chapters:
    input:
        # All that chapters leave, not the notebooks alone: one that lacks a file is run again.
        [name for chapter in CHAPTERS for name in profile.outputs(chapter)],


rule pages:
    input:
        rules.chapters.input,
    output:
        BOOK,
    params:
        recipe=pages.recipe(),
        strict="--strict" if config.get("strict") else "",
    shell:
        f"{UNITCELL} pages --profile {profile.name} {{params.strict}} 2>&1"
