"""A chapter's ledger: published or expected value, this run, tolerance, verdict; a failed hard check fails the run."""

from dataclasses import dataclass, field

import pandas as pd

from unitcell.errors import CheckFailed


@dataclass(frozen=True)
class Check:
    """One line of the ledger.

    Parameters
    ----------
    claim : str
        What is compared, in words.
    published : str
        The value that was published, or is known independently or asked for, with its source.
    value : float
        This run's value.
    low, high : float
        The tolerance: the run passes where low <= value <= high.
    unit : str
        Unit of value, low and high; "" or "1" where there is none.
    hard : bool
        Whether a miss fails the run; a soft miss is only reported.
    """

    claim: str
    published: str
    value: float
    low: float = float("-inf")
    high: float = float("inf")
    unit: str = ""
    hard: bool = True

    @property
    def holds(self):
        """Whether the value lies inside the tolerance (NaN never does)."""
        return bool(self.low <= self.value <= self.high)

    @property
    def tolerance(self):
        """The tolerance in words."""
        if self.low == float("-inf"):
            return f"≤ {self.high:.4g}"
        if self.high == float("inf"):
            return f"≥ {self.low:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def verdict(self):
        """'holds', 'fails' (hard) or 'differs' (soft)."""
        return "holds" if self.holds else ("fails" if self.hard else "differs")

    def row(self):
        """The line as a dictionary of strings."""
        unit = f" {self.unit}" if self.unit not in ("", "1") else ""
        return {
            "check": self.claim,
            "published or expected": self.published,
            "this run": f"{self.value:.4g}{unit}",
            "tolerance": f"{self.tolerance}{unit}",
            "verdict": self.verdict,
        }

    def _repr_html_(self):
        return Ledger([self])._repr_html_()


@dataclass
class Ledger:
    """The checks of one chapter, in the order in which they were made."""

    checks: list = field(default_factory=list)

    def check(self, claim, value, *, published, low=float("-inf"), high=float("inf"), unit="", hard=True):
        """Add a check and return it, so that a cell shows its line. See `Check`."""
        line = Check(claim, published, float(value), float(low), float(high), unit, hard)
        self.checks.append(line)
        return line

    def table(self):
        """All checks as a DataFrame."""
        return pd.DataFrame([check.row() for check in self.checks])

    def require(self):
        """Raise CheckFailed naming every hard check that did not hold."""
        fails = [check for check in self.checks if check.verdict == "fails"]
        failed = [f"{check.claim}: {check.row()['this run']}, tolerance {check.tolerance}" for check in fails]
        if failed:
            raise CheckFailed("The ledger does not balance: " + "; ".join(failed) + ".")

    def _repr_html_(self):
        return self.table().style.hide(axis="index").set_table_attributes('class="ledger"').to_html()
