"""The nine chapters as a table, and what makes one of them run again.

A chapter talks to the next through files only. It reruns when its *recipe* changes (its notebook, its
parameters, the modules of this package that it imports, the data of the manifest that it names), or
when a file that an earlier chapter writes for it is new. The Snakefile turns this table into a graph.
"""

import ast
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml

from unitcell.book.parameters import declared_parameters, require_known, require_numbers
from unitcell.data import is_at_hand, load_manifest
from unitcell.errors import InputError
from unitcell.project import project_root


@dataclass(frozen=True)
class Step:
    """What a chapter writes, and which of its parameters take a file of an earlier chapter."""

    writes: tuple
    reads: dict = field(default_factory=dict)


# Chapter 05 takes the committed network (its parameter stays None), so 05 to 08 do not wait for 01 to 04.
CHAPTERS = {
    "01_bayesian_chain": Step(("posterior.nc", "decisions.csv", "lattices.csv")),
    "02_simulate_abf": Step(("abf_stack.nc",)),
    "03_gp_surrogate": Step(("surrogate.nc",), {"abf_stack": "02_simulate_abf/abf_stack.nc"}),
    "04_train_tilt_network": Step(
        ("tilt_network.safetensors", "metrics.json"), {"surrogate": "03_gp_surrogate/surrogate.nc"}
    ),
    "05_infer_tilts": Step(("tilts.csv", "regions.csv", "tilt_maps.nc")),
    "06_find_atoms": Step(("atoms.csv", "patches.nc")),
    "07_rvae": Step(("rvae.safetensors", "latent.csv"), {"patches": "06_find_atoms/patches.nc"}),
    "08_gmm_cvae": Step(
        ("classes.csv", "classes.nc", "cvae.safetensors"),
        {
            "patches": "06_find_atoms/patches.nc",
            "latent": "07_rvae/latent.csv",
            "rvae": "07_rvae/rvae.safetensors",
        },
    ),
    "09_two_crystals": Step(("stability.csv", "scan_lines.csv", "claims.csv")),
}
SIGNED = ("checks.csv", "provenance.json")  # every chapter writes these too
JOBS_AT_A_TIME = 2
BUILD_PID = "UNITCELL_BUILD_PID"  # set by `unitcell build` for the chapters that it starts


def threads_per_job():
    """Threads that each chapter may use when `JOBS_AT_A_TIME` of them share this machine."""
    return max(1, (os.cpu_count() or 1) // JOBS_AT_A_TIME)


def notebook(chapter):
    """Path of a chapter's notebook; InputError for an unknown chapter."""
    if chapter not in CHAPTERS:
        raise InputError(f"There is no chapter '{chapter}': the chapters are {', '.join(CHAPTERS)}.")
    path = project_root() / "notebooks" / f"{chapter}.ipynb"
    if not path.is_file():
        raise InputError(f"No notebook at {path}: restore it with 'git checkout notebooks'.")
    return path


def descendants(chapter):
    """How many later chapters wait for this one: the longest tail starts first."""
    direct = [name for name, step in CHAPTERS.items() if any(r.startswith(chapter) for r in step.reads.values())]
    return len(direct) + sum(descendants(name) for name in direct)


@dataclass(frozen=True)
class Profile:
    """A set of parameters for all chapters, and where its runs go."""

    name: str
    chapters: dict

    def folder(self, chapter):
        """Folder of a chapter's artefacts, relative to the project."""
        return Path("build") / self.name / chapter

    def executed(self, chapter):
        """The executed notebook of a chapter."""
        return self.folder(chapter) / f"{chapter}.ipynb"

    def upstream(self, chapter):
        """Parameters that take a file of an earlier chapter, with that file's path."""
        reads = CHAPTERS[chapter].reads
        return {name: str(self.folder("") / path) for name, path in reads.items()}

    def parameters(self, chapter):
        """Everything the workflow passes to a chapter but its `output_dir`."""
        return self.upstream(chapter) | self.chapters[chapter]

    def inputs(self, chapter):
        """Files whose renewal makes the chapter run again."""
        given = [value for value in self.parameters(chapter).values() if isinstance(value, str)]
        upstream = set(self.upstream(chapter).values())
        return sorted(upstream | {value for value in given if (project_root() / value).is_file()})

    def outputs(self, chapter):
        """Files that a finished chapter leaves."""
        names = (*CHAPTERS[chapter].writes, *SIGNED, f"{chapter}.ipynb")
        return [str(self.folder(chapter) / name) for name in names]

    def recipe(self, chapter):
        """Digests of what a chapter is made of: see `recipe`."""
        return recipe(chapter, self.parameters(chapter))

    @property
    def pages(self):
        """Folder under which jupyter-book leaves `_build/html`."""
        return Path("book") if self.name == "book" else self.folder("pages")


def recipe(chapter, parameters):
    """Digests of what a chapter is made of, as a dictionary of strings: a change makes it run again."""
    path, words = notebook(chapter), _words(notebook(chapter))
    data = {f"data:{name}": _state(name, entry) for name, entry in load_manifest().items() if name in words}
    code = {str(p.relative_to(project_root())): _digest(p.read_bytes()) for p in [path, *modules(path)]}
    return code | data | {"parameters": repr(sorted(parameters.items()))}


def load_profile(name):
    """Read `profiles/<name>.yml` and check it against the chapters and their declared parameters."""
    folder = project_root() / "profiles"
    path = folder / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yml")))
        raise InputError(f"There is no profile '{name}': the profiles are {known}, each a file in {folder.name}/.")
    try:
        given = yaml.safe_load(path.read_text())["chapters"]
        chapters = {chapter: dict(given[chapter] or {}) for chapter in given}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not 'chapters:' with a map of parameters for each chapter ({reason}).") from error
    for chapter, parameters in chapters.items():
        declared = declared_parameters(notebook(chapter))
        require_known(parameters, declared, f"{path.name}: {chapter}")
        require_numbers(parameters, declared, f"{path.name}: {chapter}")
    return Profile(name, {chapter: chapters.get(chapter, {}) for chapter in CHAPTERS})


def modules(path):
    """Files of this package that a notebook imports, directly or through each other, sorted."""
    package = project_root() / "support"
    found, queue = set(), _imports(_source(path))
    while queue:
        name = queue.pop()
        file = package.joinpath(*name.split(".")).with_suffix(".py")
        file = file if file.is_file() else file.with_suffix("") / "__init__.py"
        if file.is_file() and file not in found:
            found.add(file)
            queue |= _imports(file.read_text())
    return sorted(found)


def _imports(source):
    """Dotted names of this package that Python source may import, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "unitcell"}


def _source(path):
    """The Python code of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def _words(path):
    """Every string literal in a notebook and its modules: where a name of the manifest can stand."""
    sources = [_source(path), *(file.read_text() for file in modules(path))]
    nodes = (node for source in sources for node in ast.walk(ast.parse(source)))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _state(name, entry):
    """Digest of a file of the manifest, or 'absent': a chapter that had to simulate it runs again once it is there."""
    return entry["sha256"][:16] if is_at_hand(name) else "absent"


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]
