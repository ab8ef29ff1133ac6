"""What every chapter does alike: check its parameters, keep its ledger, sign its results."""

import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from IPython.display import HTML, display

from unitcell.artefacts import save_json, save_table, sha256
from unitcell.book.figures import use_style
from unitcell.book.ledger import Ledger
from unitcell.book.parameters import declared_parameters, require_known
from unitcell.project import project_root

PLAIN = (int, float, str, bool, list, dict, type(None))
VERSIONS = ("unitcell", "numpy", "torch", "abtem", "scikit-learn", "pymc", "atomai", "xarray")


@dataclass
class Chapter:
    """One run of one chapter: its parameters, inputs, outputs, checks and clock.

    Use `Chapter.begin` at the head of a notebook and `close` at its end.
    """

    name: str
    parameters: dict
    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    inputs: dict = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, name, namespace):
        """Start the chapter.

        Parameters
        ----------
        name : str
            File name of the notebook without its suffix.
        namespace : dict
            The notebook's `globals()`, called right after the parameters cell: its plain values
            are the run's parameters.

        Raises
        ------
        InputError
            A parameter was given that the notebook does not declare.
        """
        declared = declared_parameters(project_root() / "notebooks" / f"{name}.ipynb")
        given = {
            key: value
            for key, value in namespace.items()
            if isinstance(value, PLAIN) and not key.startswith("_") and key not in ("In", "Out")
        }
        require_known(given, declared, name)
        use_style()
        folder = Path(given["output_dir"] or Path("build") / "by_hand" / name)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(name, given, folder)

    def read(self, path):
        """Note `path` as an input (for the provenance footer) and return it as a Path."""
        path = Path(path)
        if path.is_file():
            self.inputs[path.name] = sha256(path)
        return path

    def write(self, name):
        """Path of an artefact of this chapter."""
        return self.folder / name

    def check(self, claim, value, **tolerance):
        """Add a line to the ledger and show it. See `unitcell.book.ledger.Check`."""
        return self.ledger.check(claim, value, **tolerance)

    def close(self, device="cpu"):
        """Show the ledger and the provenance footer, write both, and fail if a hard check failed."""
        save_table(self.ledger.table(), self.write("checks.csv"))
        provenance = self.provenance(device)
        save_json(provenance, self.write("provenance.json"))
        display(self.ledger)
        display(HTML(_footer(provenance)))
        self.ledger.require()

    def provenance(self, device="cpu"):
        """Commit, parameters, input hashes, versions, device, seconds and peak memory as a dictionary."""
        return {
            "chapter": self.name,
            "commit": _commit(),
            "parameters": {key: value for key, value in self.parameters.items() if key != "output_dir"},
            "inputs_sha256": dict(self.inputs),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
            "device": str(device),
            "seconds": round(time.monotonic() - self.started, 1),
            "peak_memory_MB": _peak_memory_MB(),
        }


def _peak_memory_MB():
    """Largest resident size of this process so far [MB] (Linux counts in kB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def _commit():
    """The commit of the project's checkout, '+' added where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        cwd=project_root(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or "not a git checkout"


def _footer(provenance):
    """The provenance as an HTML table, one line a fact."""
    rows = "".join(
        f"<tr><th>{key.replace('_', ' ')}</th><td>{_words(value)}</td></tr>" for key, value in provenance.items()
    )
    return f'<table class="provenance">{rows}</table>'


def _words(value):
    if not isinstance(value, dict):
        return str(value)
    return "; ".join(f"{key} {_shortened(str(item))}" for key, item in value.items()) or "none"


def _shortened(text, most=64):
    return text if len(text) <= most else text[: most - 2] + " …"
