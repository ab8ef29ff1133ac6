"""Running one chapter: papermill, with a line a cell and errors in a sentence."""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import papermill
from traitlets.config import Config

from unitcell.book.parameters import declared_parameters, require_known, require_numbers
from unitcell.book.workflow import BUILD_PID, CHAPTERS, SIGNED, notebook


class ChapterFailed(Exception):
    """A cell failed: which one, and why, in three lines.

    `exit_status` is 2 where the chapter refused its input, 1 otherwise. `reason` is the second line, `notebook` what
    was executed, and `complete` says that all of it was: only a check of its ledger did not hold.
    """

    def __init__(self, message, exit_status, notebook=None, complete=False):
        super().__init__(message)
        self.exit_status, self.notebook, self.complete = exit_status, notebook, complete
        self.reason = message.splitlines()[min(1, message.count("\n"))].strip()


def run_chapter(chapter, parameters, folder, left_out=()):
    """Execute a chapter's notebook and leave the executed notebook beside its artefacts.

    Parameters
    ----------
    chapter : str
        Name of the notebook without its suffix.
    parameters : dict
        Values for names that the notebook declares.
    folder : str or Path
        Where the artefacts go; relative paths are taken from the working directory.
    left_out : collection of str
        Cells with one of these tags are not executed.

    Returns
    -------
    Path
        The executed notebook.

    Raises
    ------
    InputError
        Unknown chapter or parameter.
    ChapterFailed
        A cell raised an error; the notebook up to there is kept as `failed.ipynb` in `folder`.
    """
    source, folder = notebook(chapter), Path(folder)
    declared = declared_parameters(source)
    require_known(parameters, declared, chapter)
    require_numbers(parameters, declared, chapter)
    folder.mkdir(parents=True, exist_ok=True)
    finished, failed, running = (folder / f"{name}.ipynb" for name in (chapter, "failed", ".running"))
    content = nbformat.read(source, as_version=4)
    content.cells = [cell for cell in content.cells if not set(left_out) & set(cell.metadata.get("tags", []))]
    progress = Progress(chapter, cells=len(content.cells) + 1)  # papermill adds one
    try:
        with tempfile.TemporaryDirectory() as scratch:  # the kernel is spoken to through files, not network ports
            nbformat.write(content, Path(scratch) / source.name)
            papermill.execute_notebook(
                Path(scratch) / source.name, running, parameters | {"output_dir": str(folder)},
                progress_bar=False, on_cell_start=progress,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{scratch}/kernel"}}),
                extra_arguments=["--IPKernelApp.log_level=50"],  # being told to stop is no news for the screen
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        running.replace(failed)
        complete = error.ename == "CheckFailed" and all((folder / name).is_file() for name in SIGNED)
        raise ChapterFailed(*_failure(chapter, error, progress, failed), failed, complete) from error
    missing = [name for name in (*CHAPTERS[chapter].writes, *SIGNED) if not (folder / name).is_file()]
    if missing:
        running.replace(failed)
        raise ChapterFailed(
            f"[{chapter}] finished without writing {', '.join(missing)}.\n    The notebook: {failed}", 1
        )
    running.replace(finished)
    failed.unlink(missing_ok=True)
    progress.say(f"done: {finished}")
    return finished


class Progress:
    """Prints a line as each cell starts: chapter, cell, seconds since the start."""

    def __init__(self, chapter, cells):
        self.chapter, self.cells, self.cell, self.start = chapter, cells, 0, time.monotonic()

    def __call__(self, cell, cell_index):
        self.cell = cell_index + 1
        self.say(f"cell {self.cell}/{self.cells}")

    def say(self, what):
        """Print `what` with the chapter before it and the time after it."""
        line = f"[{self.chapter}] {what} · {time.monotonic() - self.start:.0f} s\n"
        sys.stdout.write(line)  # in one piece, since two chapters share the screen
        sys.stdout.flush()


def _failure(chapter, error, progress, kept):
    """Chapter, cell and error of a failed run in three lines, and the exit status."""
    own = len(error.traceback) == 1  # the project's own errors show no traceback: their sentence is enough
    first_line = error.source.strip().splitlines()[0]
    reason = error.evalue.strip() if own else f"{error.ename}: {(error.evalue.strip().splitlines() or [''])[0]}"
    message = (
        f"[{chapter}] failed in cell {progress.cell}/{progress.cells}: {first_line}\n    {reason}\n"
        f"    The notebook up to this cell: {kept}"
    )
    return message, 2 if own and error.ename != "CheckFailed" else 1


def end_with_build():
    """End this process when the build that started it is gone, so that nothing runs on unseen."""
    build = os.environ.get(BUILD_PID)
    if not build:
        return

    def watch():
        while _runs(int(build)):
            time.sleep(0.5)
        print("The build that started this chapter is gone: stopping.", file=sys.stderr)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
