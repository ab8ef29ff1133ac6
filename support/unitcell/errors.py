"""The one error a reader is meant to see: one sentence that names the thing and the remedy."""


class InputError(ValueError):
    """Something the reader gave cannot be used.

    The message is one sentence that names the file or parameter, its value and the remedy. In a
    notebook it is shown alone, without a page of traceback.
    """

    def _render_traceback_(self):
        """IPython calls this instead of printing the traceback."""
        return [f"{type(self).__name__}: {self}"]


class CheckFailed(InputError):
    """A hard check of a chapter's ledger did not hold."""
