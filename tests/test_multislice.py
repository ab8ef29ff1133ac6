"""Frozen-phonon multislice against limits that are known, abTEM, Bloch waves and itself."""

import abtem
import numpy as np
import pytest
import torch
from ase import Atoms
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope, annular_images, multislice, propagation
from unitcell.scattering.memory import Batches, Budget, plan_batches
from unitcell.scattering.multislice import multislice_images, scan_positions
from unitcell.scattering.slices import cut_slices, displaced_positions, slice_potentials
from unitcell.scattering.wave_grid import make_grid, smooth_size
from unitcell.scattering.wave_transforms import TorchWaves

MICROSCOPE = Microscope()
RING = [(15.0, 30.0)]
COARSE_A = 0.12  # keeps angles up to 70 mrad
ROUNDING = 5e-6  # of single precision: how far transforms round differs from processor to processor


@pytest.fixture(scope="module")
def tilted():
    crystal = tilted_perovskite(6, 2, 4)
    crystal.positions[:, 2] += 0.23
    return crystal


def simulate(crystal, thicknesses, positions, microscope=MICROSCOPE, **options):
    return multislice_images(
        crystal, microscope, thicknesses, positions, **({"sampling_A": COARSE_A, "progress": False} | options)
    )


def rms(image, truth):
    return float(np.sqrt(np.mean((image - truth) ** 2)) / truth.mean())


def test_vacuum_shows_the_share_of_the_disc():
    vacuum = Atoms(cell=(30, 30, 5), pbc=True)
    result = simulate(vacuum, [0.0, 20.0], [[1.0, 2.0], [0.0, 7.7]], detectors_mrad=[*RING, (0, 30), (31, 60)])
    assert result.mean[0] == pytest.approx(0.75, abs=0.01)
    assert result.mean[1] == pytest.approx(1.0, abs=1e-4)
    assert result.mean[2] == pytest.approx(0.0, abs=1e-9)


def test_a_tilted_beam_leaves_the_aperture_but_not_the_detector_shifted():
    vacuum = Atoms(cell=(30, 30, 5), pbc=True)
    scope = Microscope(semiangle_mrad=10, beam_tilt_x_mrad=20, beam_tilt_y_mrad=-20)
    result = simulate(vacuum, [20.0], [[0.0, 0.0]], scope, detectors_mrad=[(0, 18), (18, 39)])
    assert result.mean[:, 0, 0] == pytest.approx([0.0, 1.0], abs=0.01)


def test_electrons_are_conserved(tilted):
    # The transmission function is cut at the band limit, so where it has nothing beyond, no electron is lost.
    faint = Atoms("He", cell=(5, 5, 4), positions=[[2, 2, 2]], pbc=True)
    positions = scan_positions(faint, (3, 3))
    everything = {"waves": "probes", "dtype": torch.float64}
    assert simulate(faint, [4.0], positions, **everything).within_band == pytest.approx(1.0, abs=1e-4)
    limit = make_grid(tilted, MICROSCOPE, COARSE_A, RING).band_limit_mrad
    thick = simulate(tilted, [22.0, 44.0], positions, detectors_mrad=[(0, limit)], **everything)
    assert thick.mean[0].mean(axis=(1, 2)) == pytest.approx(thick.within_band, abs=1e-5)
    assert (1 - thick.within_band < [0.02, 0.04]).all()


def test_weak_phase_limit(tilted):
    # To first order, the wave beyond the aperture is that of iσv times the probe.
    atom = Atoms("H", cell=(6, 6, 2), positions=[[3, 3, 1]], pbc=True)
    ring, positions = [(35.0, 60.0)], np.array([[3.0, 3.0], [3.4, 2.8]])
    grid, slices = make_grid(atom, MICROSCOPE, COARSE_A, ring), cut_slices(atom, 2.0)
    potential = torch.cat(list(slice_potentials(atom, slices, grid, displaced_positions(atom, 1, None, 0), 1)))[0]
    aperture, (hits, _) = grid.aperture(), grid.detectors(ring)
    spectrum = np.zeros((2, grid.shape[0], grid.wave_frequencies[1].shape[1]), dtype=complex)
    spectrum[:, *aperture] = grid.probe_coefficients(positions, aperture)
    wave = np.fft.ifft2(spectrum, s=None, axes=(1,), norm="forward")
    wave = np.fft.ifft(wave, n=grid.shape[1], axis=2, norm="forward") * MICROSCOPE.interaction * potential.numpy()
    scattered = np.fft.fft2(wave, norm="forward")[:, *hits]
    ours = simulate(atom, [2.0], positions, detectors_mrad=ring, slice_A=2.0).mean[0, 0]
    assert ours == pytest.approx((np.abs(scattered) ** 2).sum(axis=1), rel=0.08)


def test_k_points_of_one_cell_are_a_probe_alone_on_many(tilted):
    wide, positions = tilted * (2, 1, 1), scan_positions(tilted, (5, 4))
    exact = {"dtype": torch.float64, "waves": "probes"}
    alone = simulate(wide, [22.0], positions, **exact).mean[0, 0]
    points = [(0.0, 0.0), (0.5, 0.0)]
    one_cell = [simulate(tilted, [22.0], positions, k_point=k, **exact).mean[0, 0] for k in points]
    beams = [len(make_grid(tilted, MICROSCOPE, COARSE_A, RING, k).aperture()[0]) for k in points]
    assert rms(np.average(one_cell, axis=0, weights=beams), alone) < 2e-4
    assert rms(one_cell[0], alone) > 3e-3


def test_a_k_point_outside_the_zone_is_refused(tilted):
    with pytest.raises(InputError, match=r"k_point = \(0\.7, 0\.0\) is none: give two fractions"):
        simulate(tilted, [22.0], [[0.0, 0.0]], k_point=(0.7, 0.0))


def abtem_probes(potential, positions):
    probe = abtem.Probe(energy=MICROSCOPE.energy_eV, semiangle_cutoff=MICROSCOPE.semiangle_mrad, soft=False)
    probe.grid.match(potential)
    scan, detector = abtem.CustomScan(positions.reshape(-1, 2)), abtem.AnnularDetector(*RING[0])
    return probe.scan(potential, scan=scan, detectors=detector).compute(progress_bar=False).array


def test_equals_abtem(tilted):
    positions = scan_positions(tilted, (6, 4)).reshape(-1, 2)
    grid, slices = make_grid(tilted, MICROSCOPE, 0.08, RING), cut_slices(tilted, 1.0)
    count = 3 * len(slices.thicknesses_A)
    thicknesses = tuple(np.tile(slices.thicknesses_A, 3))
    ours = simulate(tilted, [sum(thicknesses)], positions, sampling_A=0.08).mean[0, 0]
    blocks = slice_potentials(tilted, slices, grid, displaced_positions(tilted, 3, None, 0), count)
    same = abtem.PotentialArray(torch.cat(list(blocks)).numpy(), slice_thickness=thicknesses, extent=grid.lengths_A)
    assert rms(ours, abtem_probes(same, positions)) < 5e-4
    own = abtem.Potential(
        tilted * (1, 1, 3), gpts=grid.shape, slice_thickness=thicknesses, parametrization="lobato",
        projection="infinite",
    ).build(lazy=False)  # fmt: skip
    assert rms(ours, abtem_probes(own, positions)) < 5e-3


def bloch_and_multislice(crystal, **settings):
    scope, depth = Microscope(**settings), [4 * crystal.cell[2, 2]]
    bloch = annular_images(
        crystal, scope, depth, (6, 4), cutoff_mrad=90, k_points=(1, 1), thermal=False, fold=False
    ).numpy()[0]
    return bloch, simulate(crystal, depth, scan_positions(crystal, (6, 4)), scope, sampling_A=0.09).mean[0, 0]


def test_equals_bloch_waves_of_a_thin_crystal(tilted):
    # Bloch waves of one projected potential know nothing of the order of the atomic planes: 1 % here.
    assert rms(*bloch_and_multislice(tilted)) < 0.015


def test_lens_and_tilts_follow_the_conventions_of_bloch_waves(tilted):
    lens = {"defocus_A": 40.0, "coma_A": 2e3, "coma_deg": 30.0, "astigmatism_A": 20.0, "beam_tilt_x_mrad": 6.0}
    bloch, ours = bloch_and_multislice(tilted, crystal_tilt_x_mrad=9.0, crystal_tilt_y_mrad=-6.0, **lens)
    flipped = simulate(
        tilted, [4 * tilted.cell[2, 2]], scan_positions(tilted, (6, 4)),
        Microscope(crystal_tilt_x_mrad=-9.0, crystal_tilt_y_mrad=6.0, **lens), sampling_A=0.09,
    ).mean[0, 0]  # fmt: skip
    assert rms(ours, bloch) < 8e-3
    assert rms(flipped, bloch) > 5 * rms(ours, bloch)


def test_a_tilted_crystal_is_a_sheared_one(tilted):
    # For a tilt of +θx the columns lean towards −x, so shearing the atoms by hand gives the same image.
    theta = 12e-3
    stack = tilted * (1, 1, 3)
    stack.pbc = (True, True, False)
    sheared = stack.copy()
    sheared.positions[:, 0] -= theta * sheared.positions[:, 2]
    positions, depth = scan_positions(tilted, (6, 4)), [stack.cell[2, 2]]
    leaning = simulate(stack, depth, positions, Microscope(crystal_tilt_x_mrad=1e3 * theta), slice_A=0.4).mean
    by_hand, upright = (simulate(crystal, depth, positions, slice_A=0.4).mean for crystal in (sheared, stack))
    assert rms(leaning, by_hand) < 0.2 * rms(leaning, upright)
    assert rms(leaning, by_hand) < 5e-3


def test_exit_planes_of_one_pass_equal_separate_runs(tilted):
    positions = scan_positions(tilted, (3, 2))
    thicknesses = [22.0, 0.0, 5.6, 11.3]
    together = simulate(tilted, thicknesses, positions)
    for index, thickness in enumerate(thicknesses):
        alone = simulate(tilted, [thickness], positions)
        assert together.mean[:, index] == pytest.approx(alone.mean[:, 0], abs=ROUNDING)
        assert together.thicknesses_A[index] == alone.thicknesses_A[0]
        assert together.within_band[index] == pytest.approx(alone.within_band[0], abs=ROUNDING)
        assert abs(together.thicknesses_A[index] - thickness) < 0.6


def test_waves_batches_and_devices_do_not_matter(tilted, monkeypatch):
    positions = scan_positions(tilted, (3, 2))
    options = {"configurations": 3, "detectors_mrad": [*RING, (0.0, 10.0), (35.0, 60.0)], "dtype": torch.float64}
    whole = simulate(tilted, [5.5, 11.0], positions, **options)
    assert whole.waves == "probes"
    beams = simulate(tilted, [5.5, 11.0], positions, waves="beams", **options)
    assert beams.samples == pytest.approx(whole.samples, abs=1e-9)
    for batches in (Batches(1, 1, 1), Batches(4, 2, 1)):
        monkeypatch.setattr(multislice, "plan_batches", lambda *_, chosen=batches: chosen)
        assert simulate(tilted, [5.5, 11.0], positions, **options).samples == pytest.approx(whole.samples, abs=1e-9)
    # What a GPU would run: PyTorch's transforms, several configurations in a batch.
    monkeypatch.setattr(multislice, "plan_batches", lambda *_: Batches(6, 1, 2))
    monkeypatch.setattr(propagation, "waves_for", lambda _: (TorchWaves, 4))
    for waves in ("beams", "probes"):
        again = simulate(tilted, [5.5, 11.0], positions, waves=waves, **options)
        assert again.samples == pytest.approx(whole.samples, abs=1e-9)


def test_single_precision_rounds_and_no_more(tilted):
    positions = scan_positions(tilted, (3, 2))
    single, double = (
        simulate(tilted, [5.5, 11.0], positions, configurations=3, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.samples == pytest.approx(double.samples, rel=ROUNDING)


def test_threads_are_given_back(tilted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        simulate(tilted, [5.5], scan_positions(tilted, (3, 2)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_frozen_phonons_are_reproducible_and_converge(tilted):
    positions = scan_positions(tilted, (3, 2))
    ring = {"detectors_mrad": [(35.0, 60.0)]}
    many = simulate(tilted, [5.5], positions, configurations=48, **ring)
    few = simulate(tilted, [5.5], positions, configurations=12, **ring)
    assert few.samples == pytest.approx(many.samples[:12], abs=1e-7)
    resumed = simulate(tilted, [5.5], positions, configurations=range(12, 14), **ring)
    assert resumed.samples == pytest.approx(many.samples[12:14], abs=1e-7)
    assert np.abs(simulate(tilted, [5.5], positions, configurations=1, seed=1, **ring).mean - few.mean).max() > 1e-5
    ratio = np.sqrt((many.standard_error**2).mean() / (few.standard_error**2).mean())
    assert ratio == pytest.approx(0.5, abs=0.15)
    still = simulate(tilted, [5.5], positions, configurations=2, debye_waller_A2=dict.fromkeys(("Sr", "Ti", "O"), 0))
    assert still.standard_error.max() < 1e-7
    assert still.mean == pytest.approx(simulate(tilted, [5.5], positions).mean, abs=ROUNDING)


def test_opposed_displacements_take_away_what_is_linear_in_them(tilted):
    positions, depth = scan_positions(tilted, (11, 9)), [88.0]  # beside columns: on them, nothing is linear
    options = {"configurations": 24, "seed": 5}

    def of_pairs(**more):
        return simulate(tilted, depth, positions, **options, **more).samples.reshape(12, 2, -1).mean(axis=1)

    opposed, others = of_pairs(opposed=True), of_pairs()
    assert opposed.var(axis=0, ddof=1).mean() < 0.5 * others.var(axis=0, ddof=1).mean()
    error = np.sqrt(opposed.var(axis=0, ddof=1) / 12 + others.var(axis=0, ddof=1) / 12)
    assert np.sqrt((((opposed.mean(axis=0) - others.mean(axis=0)) / error) ** 2).mean()) < 1.7
    one, other = (displaced_positions(tilted, 3, {"Sr": 0.1, "Ti": 0.1, "O": 0.1}, 3, sign) for sign in (1, -1))
    still = np.broadcast_to(tilted.positions[:, :2], one.shape)
    assert (one + other) / 2 == pytest.approx(still)
    assert np.abs(one - still).max() > 0.1


def test_displacements_have_the_elements_size(tilted):
    moved = displaced_positions(tilted, 200, {"Sr": 0.09, "Ti": 0.0, "O": 0.12}, 3) - tilted.positions[:, :2]
    symbols = np.array(tilted.get_chemical_symbols())
    for symbol, sigma in (("Sr", 0.09), ("Ti", 0.0), ("O", 0.12)):
        assert moved[:, symbols == symbol].std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("shift", [0.0, 0.23, 0.46, 1.0])
def test_no_atomic_plane_is_split(shift):
    crystal = tilted_perovskite(0, 0, 0)
    height = crystal.cell[2, 2]
    crystal.positions[:, 2] = (crystal.positions[:, 2] + shift + np.where(np.arange(len(crystal)) % 2, 0.02, -0.02)) % (
        height
    )
    slices = cut_slices(crystal, 1.0)
    assert slices.period_A == pytest.approx(height)
    assert np.abs(slices.thicknesses_A - height / 6).max() < height / 6
    plane = np.round((crystal.positions[:, 2] - shift) / (height / 4)).astype(int) % 4
    for number in range(4):
        assert len(np.unique(slices.owner[plane == number])) == 1


def test_smooth_sizes():
    assert [smooth_size(n) for n in (1, 7, 11, 46.0, 97)] == [1, 8, 12, 48, 100]


def test_batches_fit_and_are_refused_with_numbers(tilted):
    budget = Budget(per_wave=10**6, fixed=10**8, results=10**7)
    on_gpu = plan_batches(budget, 300, 8, "cuda", 1.3e9)
    assert (on_gpu.waves, on_gpu.workers, on_gpu.configurations) == (300, 1, 3)
    small = plan_batches(budget, 300, 8, "cuda", 1.5e8)
    assert (small.waves, small.configurations) == (40, 1)
    for usable in (1.3e9, 1.12e8):
        on_cpu = plan_batches(budget, 300, 8, "cpu", usable)
        assert budget.needed(on_cpu.waves * on_cpu.workers) <= usable
    with pytest.raises(InputError, match=r"needs 0\.111 GB for a single wave and 0\.1 GB"):
        plan_batches(budget, 300, 8, "cuda", 1e8)
    with pytest.raises(InputError, match="sampling_A"):
        simulate(tilted, [5.5], [[0.0, 0.0]], memory_limit_GB=1e-4)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"cell": "thin"}, "repeat the cell 2 times along x"),
        ({"cell": "finite", "thicknesses": [50.0]}, "beyond the crystal"),
        ({"cell": "skew"}, "not orthogonal"),
        ({"cell": "none"}, "no cell"),
        ({"cell": "nan"}, "remove the NaN"),
        ({"detectors_mrad": []}, "empty"),
        ({"sampling_A": 0.3}, r"give sampling_A = 0\.27"),
        ({"sampling_A": -1}, "sampling_A"),
        ({"slice_A": 0.0}, "slice_A"),
        ({"thicknesses": [-1.0]}, "negative"),
        ({"thicknesses": []}, "one or more"),
        ({"positions": [[0.0, np.nan]]}, r"position \[0\] is \[0\.0, nan\]"),
        ({"positions": [0.0, 1.0]}, "shape"),
        ({"positions": np.zeros((4, 3))}, "shape"),
        ({"detectors_mrad": [(20.0, 10.0)]}, "collects nothing"),
        ({"configurations": 0}, "configurations"),
        ({"waves": "plane"}, "waves"),
        ({"configurations": 2, "debye_waller_A2": {"O": -1.0}}, "Debye–Waller"),
    ],
)
def test_impossible_settings_are_refused(tilted, change, names):
    crystal, change = tilted.copy(), dict(change)
    kind = change.pop("cell", None)
    if kind == "thin":
        crystal.set_cell([3.9, 7.8, 5.5])
    elif kind == "finite":
        crystal.pbc = (True, True, False)
    elif kind == "none":
        crystal.set_cell([0, 0, 0])
    elif kind == "nan":
        crystal.positions[3, 0] = np.nan
    elif kind == "skew":
        crystal.set_cell([[5.5, 0, 0], [1.0, 7.8, 0], [0, 0, 5.5]])
    thicknesses, positions = change.pop("thicknesses", [5.5]), change.pop("positions", [[0.0, 0.0]])
    with pytest.raises(InputError, match=names):
        simulate(crystal, thicknesses, positions, **change)
