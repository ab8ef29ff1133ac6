"""Bloch-wave images against their definition, analytic limits, abTEM, finite differences and the crystal's symmetry."""

import abtem
import numpy as np
import pytest
import torch
from ase import Atoms
from plain_bloch import plain_images
from scipy.ndimage import gaussian_filter
from unitcell.abf.crosscheck import abtem_image, abtem_images
from unitcell.crystals import tilted_perovskite, tilted_positions
from unitcell.scattering import Microscope, annular_images, bloch
from unitcell.scattering.bloch import BlochMatrices, absorbed, evolved
from unitcell.scattering.potential import Atomic, absorptive_factor, scattering_factor

MICROSCOPE = Microscope()
DOUBLE = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def tilted():
    return tilted_perovskite(6, 2, 4)


@pytest.fixture(scope="module")
def odd():
    """A small cell without any symmetry, its atoms at one height."""
    return Atoms("SrO2", [[0.4, 0.7, 1.0], [2.6, 1.9, 1.0], [1.1, 3.2, 1.0]], cell=[4.6, 4.4, 2.0], pbc=True)


@pytest.fixture
def _no_weak_beams(monkeypatch):
    monkeypatch.setattr(bloch, "WEAK", 1.0)


def images(crystal, thicknesses, microscope=MICROSCOPE, shape=(10, 7), **options):
    return annular_images(
        crystal, microscope, thicknesses, shape, **({"cutoff_mrad": 40, "k_points": (1, 1)} | options)
    )


def largest(difference):
    return float(difference.abs().max())


def rms(image, truth):
    return float((image - truth).square().mean().sqrt() / truth.mean())


def grid_positions(crystal, shape):
    width, height = crystal.cell.lengths()[:2]
    y, x = np.meshgrid(np.arange(shape[0]) / shape[0] * height, np.arange(shape[1]) / shape[1] * width, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


# Against the definition


@pytest.mark.usefixtures("_no_weak_beams")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"defocus_A": 40.0, "astigmatism_A": 20.0, "astigmatism_deg": 25.0, "coma_A": 4e3, "coma_deg": 70.0},
        {"beam_tilt_x_mrad": 6.0, "beam_tilt_y_mrad": -3.0, "spherical_A": 2e5},
        {"crystal_tilt_x_mrad": 7.0, "crystal_tilt_y_mrad": -11.0},
        {"crystal_tilt_x_mrad": 5.0, "beam_tilt_y_mrad": 8.0, "coma_A": 4e3, "inner_mrad": 33.0, "outer_mrad": 39.0},
    ],
)
def test_image_is_what_its_definition_says(odd, settings):
    # In the definition a tilt of the crystal is one of beam and detector, and every probe is propagated by itself.
    scope, k = Microscope(**settings), np.array([[0.2, -0.1]])
    points = np.concatenate([k, np.zeros((3, 2))])  # four, so that probes stand far enough apart
    b_A2 = {"Sr": 0.6, "O": 0.7}
    ours = images(odd, [50.0], scope, (4, 3), k_points=points, debye_waller_A2=b_A2, excitation_per_A=0, **DOUBLE)
    counts, truth = [], 0
    for point, weight in ((k[0], 1), ((0.0, 0.0), 3)):
        plain = plain_images(odd, scope, 50.0, grid_positions(odd, (4, 3)), 40, b_A2, point)
        q = np.stack(np.meshgrid(np.arange(-9, 10), np.arange(-9, 10)), axis=-1).reshape(-1, 2) + point
        q = q / odd.cell.lengths()[:2] * scope.wavelength_A * 1e3
        counts.append(weight * (np.hypot(*(q - [scope.beam_tilt_x_mrad, scope.beam_tilt_y_mrad]).T) <= 30).sum())
        truth = truth + counts[-1] * plain
    assert ours.numpy().ravel() == pytest.approx(truth / sum(counts), abs=1e-8)
    assert np.ptp(truth / sum(counts)) > 0.02


def test_weak_beams_stand_for_a_larger_cutoff(odd, monkeypatch):
    ours = images(odd, [60.0], cutoff_mrad=50)
    monkeypatch.setattr(bloch, "WEAK", 1.0)
    truth = images(odd, [60.0], cutoff_mrad=70)
    assert rms(ours, truth) < 0.5 * rms(images(odd, [60.0], cutoff_mrad=50), truth)


def test_scattering_matrices_are_unitary_with_upper_zones_too(tilted):
    atomic = Atomic.of(tilted, False, None, None, "cpu")
    matrices = BlochMatrices(atomic, MICROSCOPE, 40, 0.03, False, torch.zeros(2), torch.float32)
    (((strong, weak), *_), *_) = matrices.groups(np.zeros(2), 30.0)
    assert strong[:, 2].min() < 0
    assert strong[:, 2].max() == 0
    values, vectors = torch.linalg.eigh(matrices.matrix(strong, weak, np.zeros(2)))
    everything = np.arange(len(strong))
    matrix = evolved(values, vectors, torch.tensor([20.0, 420.0]), everything, everything)[0]
    assert largest(matrix.mH @ matrix - torch.eye(len(strong))) < 1e-4
    assert (matrix.abs().square().sum(dim=1) - 1).abs().max() < 2e-5


# Limits


def test_a_detector_of_every_angle_counts_every_electron(tilted):
    everything = Microscope(inner_mrad=0, outer_mrad=50)
    whole = images(tilted, [20.0, 420.0], everything, cutoff_mrad=50)
    assert whole.numpy() == pytest.approx(1.0, abs=1e-5)
    # Where the ring of a zone lies on the detector its beams interfere, and the cut-off of the sum shows.
    helix = Atoms("C3", [[1, 1, 0], [3, 1.5, 4.5], [2, 3.5, 9]], cell=[4.3, 4.4, 14], pbc=True)
    everything = Microscope(inner_mrad=0, outer_mrad=65)
    whole = images(helix, [30.0, 90.0], everything, cutoff_mrad=65, excitation_per_A=0.004)
    assert whole.numpy() == pytest.approx(1.0, abs=2e-3)


def test_vacuum_shows_the_share_of_the_disc(tilted):
    empty = Atoms(cell=tilted.cell, pbc=True)
    vacuum = images(empty, [50.0], shape=(4, 4), k_points=(8, 6))
    assert vacuum.numpy() == pytest.approx(0.75, abs=2e-3)
    assert np.ptp(vacuum.numpy()) < 1e-6
    assert np.ptp(images(tilted, [0.0]).numpy()) < 1e-6


@pytest.mark.parametrize("thickness", [5.0, 80.0])
def test_weak_scattering_is_kinematic(thickness):
    # First Born approximation: S_hg = i (σ/c) V_{h−g} t sinc((s_h − s_g) t) exp(iπ (s_h + s_g) t).
    atom = Atoms("H", [[1.0, 0.7, 0.5]], cell=[4.4, 4.3, 20.0], pbc=True)
    scope, b = Microscope(inner_mrad=31, outer_mrad=39), 8.0
    ours = images(atom, [thickness], scope, (3, 3), debye_waller_A2={"H": b}, excitation_per_A=0, **DOUBLE)
    h, k = np.meshgrid(np.arange(-9, 10), np.arange(-9, 10), indexing="ij")
    q = np.stack([h.ravel() / 4.4, k.ravel() / 4.3], axis=1)
    angle = np.hypot(*q.T) * scope.wavelength_A * 1e3
    probe, seen = q[angle <= 30], q[(angle >= 31) & (angle <= 39)]
    step, s = seen[:, None] - probe, [-scope.wavelength_A * (p**2).sum(axis=1) / 2 for p in (seen, probe)]
    v = scattering_factor("H", (step**2).sum(axis=-1), b) * np.exp(-2j * np.pi * step @ [1.0, 0.7]) / (4.4 * 4.3)
    born = scope.interaction / 20 * v * thickness * np.sinc(np.subtract.outer(*s) * thickness)
    born = born * np.exp(1j * np.pi * np.add.outer(*s) * thickness)
    waves = born @ np.exp(-2j * np.pi * probe @ grid_positions(atom, (3, 3)).T)
    truth = (np.abs(waves) ** 2).sum(axis=0) / len(probe)
    assert ours.numpy().ravel() == pytest.approx(truth, rel=0.01)


def test_equals_abtem_multislice_of_a_thin_crystal(tilted):
    ours = images(tilted, [4 * tilted.cell[2, 2]], shape=(20, 14), cutoff_mrad=65, thermal=False)
    peer = torch.tensor(abtem_image(tilted, MICROSCOPE, 4, (20, 14)))
    assert rms(ours[0], peer) < 0.006


# The microscope


def test_abtem_at_k_points_of_a_cell_is_abtem_on_many_cells(tilted):
    window = {"window_A": tuple(tilted.cell.lengths()[:2]), "slices": 2}
    wide = abtem_images(tilted, MICROSCOPE, [4, 9], (10, 7), repeats=(2, 1), **window)[0]
    at_k = abtem_images(
        tilted, MICROSCOPE, [4, 9], (10, 7), configurations=2, k_points=[(0.0, 0.0), (0.5, 0.0)], **window
    )
    assert at_k.mean(axis=0) == pytest.approx(wide, abs=2e-4)
    weight = at_k[0] / abtem_images(tilted, MICROSCOPE, [4, 9], (10, 7), **window)[0]  # beams at k = 0 over the mean
    assert weight == pytest.approx(weight[0, 0, 0], abs=1e-5)
    assert weight[0, 0, 0] == pytest.approx(1, abs=0.05)
    assert np.abs(at_k[0] - wide).max() > 2e-3


def test_aberrations_are_abtems():
    settings = {
        "defocus_A": 70.0, "astigmatism_A": 40.0, "astigmatism_deg": 25.0, "coma_A": 3e3, "coma_deg": -50.0,
        "spherical_A": 4e5,
    }  # fmt: skip
    names = {"C10": -70.0, "C12": 40.0, "phi12": np.deg2rad(25), "C21": 3e3, "phi21": np.deg2rad(-50), "C30": 4e5}
    angle, azimuth = (a.ravel() for a in np.meshgrid(np.linspace(0, 0.03, 7), np.linspace(0, 2 * np.pi, 9)))
    lens = abtem.transfer.Aberrations(energy=200e3, aberration_coefficients=names)
    scope = Microscope(**settings)
    q = angle / scope.wavelength_A
    ours = np.exp(-1j * scope.aberration_phase(q * np.cos(azimuth), q * np.sin(azimuth)))
    assert ours == pytest.approx(lens._evaluate_from_angular_grid(angle, azimuth), abs=2e-4)
    assert Microscope.from_attributes(scope.as_attributes() | {"abf": 1}) == scope


def test_source_blurs_the_image_by_its_gaussian(tilted):
    sharp = images(tilted, [60.0], shape=(80, 56), **DOUBLE)[0]
    blurred = images(tilted, [60.0], Microscope(source_fwhm_A=0.8), shape=(80, 56), **DOUBLE)[0]
    pixels = [0.8 / 2.35482 * n / length for n, length in zip((80, 56), tilted.cell.lengths()[1::-1], strict=True)]
    truth = gaussian_filter(sharp.numpy(), pixels, mode="wrap", truncate=8)
    assert blurred.numpy() == pytest.approx(truth, abs=1e-6)
    assert blurred.std() < 0.8 * sharp.std()


# Symmetry and options that must not matter


def test_mirror_leaves_the_image_and_one_flipped_sign_does_not(tilted):
    image = images(tilted, [110.0], excitation_per_A=0)
    assert largest(images(tilted_perovskite(-2, -6, -4), [110.0], excitation_per_A=0) - image) < 1e-5
    assert largest(images(tilted_perovskite(6, 2, -4), [110.0], excitation_per_A=0) - image) > 1e-2


def test_complex_and_real_potentials_agree(tilted):
    # Moving the origin off the inversion centre makes the potential complex and must only move the image.
    moved = tilted.copy()
    moved.positions += [tilted.cell[0, 0] / 7, 0, 0]
    matrices = [
        BlochMatrices(Atomic.of(c, True, None, None, "cpu"), MICROSCOPE, 40, 0, False, torch.zeros(2), torch.float32)
        for c in (tilted, moved)
    ]
    assert [m.real for m in matrices] == [True, False]
    assert largest(torch.roll(images(tilted, [80.0]), 1, 2) - images(moved, [80.0])) < 1e-5


def test_folding_and_precision_hardly_matter(tilted):
    options = {"k_points": (2, 1), "shape": (10, 7), "cutoff_mrad": 50}
    image = images(tilted, [60.0, 200.0], **options)
    assert largest(image - images(tilted, [60.0, 200.0], fold=False, **options)) < 1e-5
    assert largest(image - images(tilted, [60.0, 200.0], **options, **DOUBLE)) < 1e-4
    static = {"excitation_per_A": 0.025, "thermal": False}
    image = images(tilted, [60.0, 200.0], **options, **static)
    assert 1e-7 < largest(image - images(tilted, [60.0, 200.0], fold=False, **options, **static)) < 1e-3


def test_a_batch_and_several_detectors_equal_single_runs(tilted):
    crystals = [tilted, tilted_perovskite(0, 0, 3)]
    rings = [(0.0, 12.0), (15.0, 30.0), (32.0, 40.0)]
    together = images(crystals, [40.0, 80.0], detectors_mrad=rings, **DOUBLE)
    assert together.shape == (2, 3, 2, 10, 7)
    positions = torch.tensor(np.stack([c.positions for c in crystals]))
    assert largest(images(tilted, [40.0, 80.0], detectors_mrad=rings, positions=positions, **DOUBLE) - together) < 1e-12
    for row, crystal in zip(together, crystals, strict=True):
        for image, (inner, outer) in zip(row, rings, strict=True):
            scope = Microscope(inner_mrad=inner, outer_mrad=outer)
            assert largest(images(crystal, [40.0, 80.0], scope, **DOUBLE) - image) < 1e-12


# Gradients


def slopes(function, point, step):
    """Central differences of a function of a vector."""
    found = []
    for index in range(point.numel()):
        move = torch.zeros(point.numel(), dtype=point.dtype)
        move[index] = step
        ends = [function(point + sign * move.reshape(point.shape)) for sign in (1, -1)]
        found.append(float(ends[0] - ends[1]) / (2 * step))
    return torch.tensor(found, dtype=point.dtype).reshape(point.shape)


def merit(tilts=(6.0, 2.0, 4.0), thicknesses=(25.0, 90.0), lean=(3.0, -2.0), positions=None):
    """A weighted sum of two images, whose gradient is wanted; tilts [degrees], thicknesses [Å], lean [mrad]."""
    tilts, thicknesses, lean = (torch.as_tensor(v, dtype=torch.float64) for v in (tilts, thicknesses, lean))
    weights = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    positions = tilted_positions(tilts) if positions is None else positions
    crystal = tilted_perovskite(6, 2, 4)
    return (
        weights * images(crystal, thicknesses, shape=(6, 5), positions=positions, crystal_tilt_mrad=lean, **DOUBLE)
    ).sum()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tilts", (6.0, 2.0, 4.0)),
        ("tilts", (0.0, 0.0, 0.0)),  # many Bloch waves are degenerate there
        ("thicknesses", (25.0, 90.0)),
        ("lean", (3.0, -2.0)),
    ],
)
def test_gradients_are_finite_differences(name, value):
    point = torch.tensor(value, dtype=torch.float64)
    leaf = point.clone().requires_grad_()
    merit(**{name: leaf}).backward()
    truth = slopes(lambda p: merit(**{name: p}), point, 1e-3)
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.numpy() == pytest.approx(truth.numpy(), rel=1e-3, abs=1e-6 * float(truth.abs().max() + 1))


def test_gradients_see_symmetry_break(tilted):
    # One atom alone leaves the centring and the inversion centre; a lean makes −k differ from k.
    leaf = torch.tensor(tilted.positions, requires_grad=True)
    merit(positions=leaf).backward()

    def moved(shift):
        positions = torch.tensor(tilted.positions)
        positions[4, :2] += shift
        return merit(positions=positions)

    truth = slopes(moved, torch.zeros(2, dtype=torch.float64), 1e-4)
    assert leaf.grad[4, :2].numpy() == pytest.approx(truth.numpy(), rel=1e-3)
    lean = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    merit(lean=lean).backward()
    truth = slopes(lambda p: merit(lean=p), torch.zeros(2, dtype=torch.float64), 1e-3)
    assert lean.grad.numpy() == pytest.approx(truth.numpy(), rel=1e-3)


# Absorption


@pytest.mark.usefixtures("_no_weak_beams")
def test_absorption_is_that_of_plain_propagation(odd):
    b_A2, scope = {"Sr": 0.6, "O": 0.7}, Microscope(inner_mrad=0, outer_mrad=40)
    factor = absorptive_factor(MICROSCOPE.interaction)

    def loss(q):
        steps = q[:, None] - q[None, :]
        waves = [factor(a.symbol, (steps**2).sum(-1), b_A2[a.symbol]) * np.exp(-2j * np.pi * steps @ a.position[:2])
                 for a in odd]  # fmt: skip
        return sum(waves) / np.prod(odd.cell.lengths()[:2])

    depths = [20.0, 60.0, 100.0]
    options = {"excitation_per_A": 0, "debye_waller_A2": b_A2, "absorption": True, **DOUBLE}
    ours = images(odd, depths, scope, (4, 3), **options).numpy().reshape(3, -1)
    truth = np.array([plain_images(odd, scope, t, grid_positions(odd, (4, 3)), 40, b_A2, loss=loss) for t in depths])
    assert (1 - ours.mean(axis=1) > [0.004, 0.015, 0.025]).all()
    assert (np.diff(ours.mean(axis=1)) < -0.01).all()
    assert ours == pytest.approx(truth, abs=0.03 * float(1 - truth.min()))


def test_absorption_follows_the_mixing_of_bloch_waves(tilted):
    atomic = Atomic.of(tilted, True, None, None, "cpu")
    matrices = BlochMatrices(atomic, MICROSCOPE, 40, 0.0, True, torch.zeros(2), torch.float64)
    (((strong, weak), *_), *_) = matrices.groups(np.zeros(2), 30.0)
    values, vectors = torch.linalg.eigh(matrices.matrix(strong, weak, np.zeros(2)))
    losses, everything = matrices.losses(strong, vectors), np.arange(len(strong))
    depths = torch.tensor([350.0, 30.0, 130.0, 230.0])  # of equal and unequal steps, in any order
    found = absorbed(values, vectors, losses, depths, everything, everything[:20])[0]
    generator, basis = (1j * torch.diag(values[0]) - losses[0]).to(torch.complex128), vectors[0].to(torch.complex128)
    for wave, depth in zip(found, depths.tolist(), strict=True):
        exact = basis @ torch.linalg.matrix_exp(generator * depth) @ basis.mH[:, :20]
        assert largest(wave - exact) < 3e-4
    damped = losses * torch.eye(len(strong))
    assert largest(absorbed(values, vectors, damped, depths, everything, everything[:20])[0] - found) > 0.015


def test_absorptive_factor_is_what_displacements_take_away():
    # Electrons lost by a plane wave at one vibrating atom: ∫ 1 − |⟨exp(iσv)⟩|² by averaging over displacements.
    symbol, b, n, box = "O", 0.7, 192, 6.0
    f = np.fft.fftfreq(n, box / n)
    spectrum = scattering_factor(symbol, f[:, None] ** 2 + f**2, 0.0) * (n / box) ** 2
    generator = np.random.default_rng(0)
    mean, count = 0, 400
    for dx, dy in generator.normal(size=(count, 2)) * np.sqrt(b / (8 * np.pi**2)):
        shift = np.exp(-2j * np.pi * (f[:, None] * (dx + 3) + f * (dy + 3)))
        mean = mean + np.exp(1j * MICROSCOPE.interaction * np.fft.ifft2(spectrum * shift).real) / count
    truth = (1 - np.abs(mean) ** 2).sum() * (box / n) ** 2
    first = 2 * MICROSCOPE.interaction * absorptive_factor(MICROSCOPE.interaction)(symbol, np.zeros(1), b)[0]
    assert first == pytest.approx(truth, rel=0.1)
