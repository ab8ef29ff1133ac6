"""Every posterior of a growing chain: the exact grid against NUTS of the same model, side by side in one process.

Both get case 2's differences, odd bonds and even bonds, 500 cells, with the paper's priors. The grid gives the
posterior after each of the 500 cells; NUTS, compiled once and warm, gives those after ten numbers of cells with 4 ×
1000 draws, its time being charged for as many as the grid gave. Intervals and probabilities included on both sides,
compilation on neither. Prints one JSON line last: `seconds` (grid), `peer_seconds` (NUTS, for as many posteriors),
`max_abs_diff` (of the means, in posterior standard deviations) and `speedup`.
"""

import json
import time

import arviz as az
import numpy as np
import nutpie
import pytensor
from unitcell.symmetry.chain import BONDS, CASE_2, chain_model, exact_posterior, priors, with_difference

CELLS, ROPE = 500, (-0.1, 0.1)
SIZES = [10, 20, 40, 60, 100, 150, 200, 300, 400, 500]


def by_grid(bonds):
    """Means and standard deviations of every bond after every cell, (3, cells) each, with intervals and
    probabilities."""
    beliefs = exact_posterior(bonds)
    for belief in beliefs.values():
        belief.hdi(0.94), belief.probability_in(ROPE)
    moments = [beliefs[bond].moments() for bond in BONDS]
    return np.array([m[0] for m in moments]), np.array([m[1] for m in moments])


def compiled_nuts(lengths, prior):
    """The same model, compiled for nutpie."""
    with pytensor.config.change_flags(cxx=""):
        return nutpie.compile_pymc_model(chain_model(lengths, prior))


def by_nuts(compiled, lengths):
    """Means of every bond after `SIZES` cells, (3, sizes), with intervals and probabilities."""
    means = []
    for n in SIZES:
        run = compiled.with_data(lengths=lengths[:, :n])
        mu = nutpie.sample(run, draws=1000, tune=1000, chains=4, seed=n, target_accept=0.95, progress_bar=False)
        mu = mu.posterior["mu"]
        az.hdi(mu.to_dataset(name="mu"), hdi_prob=0.94), ((mu >= ROPE[0]) & (mu <= ROPE[1])).mean(("chain", "draw"))
        means.append(mu.mean(("chain", "draw")).values)
    return np.stack(means, 1)


def timed(work, *arguments):
    """What `work` returns, and the seconds it took."""
    started = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - started


def main():
    bonds = CASE_2.simulate(CELLS, np.random.default_rng(0))
    lengths = with_difference(bonds)
    compiled = compiled_nuts(lengths, priors(lengths))
    by_grid(bonds), by_nuts(compiled, lengths)  # both warm
    (mean, sd), seconds = timed(by_grid, bonds)
    nuts, sampling = timed(by_nuts, compiled, lengths)
    peer_seconds = sampling / len(SIZES) * CELLS
    rows = np.array(SIZES) - 1
    record = {
        "seconds": round(seconds, 3),
        "peer_seconds": round(peer_seconds, 1),
        "max_abs_diff": round(float(np.abs((nuts - mean[:, rows]) / sd[:, rows]).max()), 3),
        "speedup": round(peer_seconds / seconds, 1),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
