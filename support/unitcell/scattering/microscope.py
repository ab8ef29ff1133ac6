"""The probe, the specimen's tilt and the detector of one STEM image."""

import math
from dataclasses import asdict, dataclass, fields

from abtem.core.energy import energy2sigma, energy2wavelength

from unitcell.errors import InputError


@dataclass(frozen=True)
class Microscope:
    """Probe and annular detector (inner_mrad = 0 makes it a bright-field disc, large angles a dark-field ring).

    Parameters
    ----------
    energy_eV : float
        Beam energy [eV].
    semiangle_mrad : float
        Convergence semi-angle [mrad].
    inner_mrad, outer_mrad : float
        Collection angles of the annular detector [mrad].
    defocus_A : float
        Defocus [Å], positive for underfocus (C10 = −defocus).
    astigmatism_A, astigmatism_deg : float
        Two-fold astigmatism C12 [Å] and its azimuth φ12 [degrees].
    coma_A, coma_deg : float
        Axial coma C21 [Å] and its azimuth φ21 [degrees].
    spherical_A : float
        Spherical aberration C30 [Å] (1 µm = 1e4 Å).
    crystal_tilt_x_mrad, crystal_tilt_y_mrad : float
        Tilt of the zone axis against the optic axis [mrad]; probe and detector stay together.
    beam_tilt_x_mrad, beam_tilt_y_mrad : float
        Tilt of the probe against crystal and detector [mrad].
    source_fwhm_A : float
        Full width at half maximum of the Gaussian source image [Å].
    """

    energy_eV: float = 200e3
    semiangle_mrad: float = 30.0
    inner_mrad: float = 15.0
    outer_mrad: float = 30.0
    defocus_A: float = 0.0
    astigmatism_A: float = 0.0
    astigmatism_deg: float = 0.0
    coma_A: float = 0.0
    coma_deg: float = 0.0
    spherical_A: float = 0.0
    crystal_tilt_x_mrad: float = 0.0
    crystal_tilt_y_mrad: float = 0.0
    beam_tilt_x_mrad: float = 0.0
    beam_tilt_y_mrad: float = 0.0
    source_fwhm_A: float = 0.0

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise InputError(f"{name} = {value} is not a number: give a finite one.")
        if not 1e4 <= self.energy_eV <= 2e6:
            raise InputError(f"energy_eV = {self.energy_eV:g} is no STEM's: give 1e4 to 2e6 eV.")
        if not 1 <= self.semiangle_mrad <= 100:
            raise InputError(f"semiangle_mrad = {self.semiangle_mrad:g} is no probe's: give 1 to 100 mrad.")
        require_ring(self.inner_mrad, self.outer_mrad)
        if self.source_fwhm_A < 0:
            raise InputError(f"source_fwhm_A = {self.source_fwhm_A:g} cannot be: give 0 or more.")

    @property
    def wavelength_A(self):
        """Relativistic wavelength [Å]."""
        return energy2wavelength(self.energy_eV)

    @property
    def interaction(self):
        """Interaction constant σ [rad / (V Å)]."""
        return energy2sigma(self.energy_eV)

    def as_attributes(self):
        """The settings as a flat dictionary, for netCDF attributes and model cards."""
        return asdict(self)

    @classmethod
    def from_attributes(cls, attributes):
        """The microscope that `as_attributes` described, among other attributes; absent settings keep their default."""
        known = [field.name for field in fields(cls) if field.name in attributes]
        return cls(**{name: float(attributes[name]) for name in known})

    def aberration_phase(self, qx, qy):
        """χ(q) [rad] of the lens at spatial frequencies q [1/Å]; the probe's spectrum is exp(−iχ).

        χ = (2π/λ) [½ (C10 + C12 cos 2(φ − φ12)) θ² + ⅓ C21 cos(φ − φ21) θ³ + ¼ C30 θ⁴], θ = λ|q|
        (Kirkland, Advanced Computing in Electron Microscopy, chapter 2, in abTEM's notation), as a
        polynomial in q so that gradients exist on the axis. Takes arrays or tensors.
        """
        x, y = qx * self.wavelength_A, qy * self.wavelength_A
        square = x**2 + y**2
        twofold, onefold = 2 * math.radians(self.astigmatism_deg), math.radians(self.coma_deg)
        second = self.astigmatism_A * ((x**2 - y**2) * math.cos(twofold) + 2 * x * y * math.sin(twofold))
        third = self.coma_A * square * (x * math.cos(onefold) + y * math.sin(onefold))
        path = (-self.defocus_A * square + second) / 2 + third / 3 + self.spherical_A * square**2 / 4
        return 2 * math.pi / self.wavelength_A * path


def require_ring(inner_mrad, outer_mrad):
    """Refuse an annular detector that collects nothing."""
    if not 0 <= inner_mrad < outer_mrad < math.inf:
        raise InputError(
            f"A detector from {inner_mrad:g} to {outer_mrad:g} mrad collects nothing: give 0 ≤ inner_mrad < outer_mrad."
        )
