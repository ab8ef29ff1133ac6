"""Images of a vibrating crystal without random displacements: elastic ones, and what vibrations scatter."""

from unitcell.scattering.bloch import CUTOFF_MRAD, annular_images

RETURNED = 0.15  # between what frozen phonons of titanates and of lanthanides have


def thermal_images(crystal, microscope, thicknesses_A, shape, returned=RETURNED, *, cutoff_mrad=CUTOFF_MRAD, **options):
    """Images that include the electrons that vibrations scatter: nearly those of frozen phonons, without sampling.

    What thermal diffuse scattering takes out of the elastic wave is spread over all angles, and a share ρ of it falls
    on the detector:

        I = I_detector + ρ (1 − I_everywhere).                                                                (1)

    One number for all depths, columns and elements is enough: chapter 02 and `tests/test_reference.py` hold the default
    against abTEM's frozen phonons on 15–30 mrad at 200 kV. Other detectors have another share.

    Parameters
    ----------
    returned : float or tensor
        ρ, between 0 and 1; a tensor that goes with (rows, columns) where it changes across the image.
    crystal, microscope, thicknesses_A, shape, cutoff_mrad, options
        See `annular_images`.

    Returns
    -------
    torch.Tensor, shape ([batch,] T, rows, columns)
        Fraction of the incident electrons that reach the detector.

    Raises
    ------
    InputError
        What `annular_images` refuses.
    """
    detectors = [(microscope.inner_mrad, microscope.outer_mrad), (0.0, cutoff_mrad)]
    options = options | {"cutoff_mrad": cutoff_mrad, "absorption": True, "detectors_mrad": detectors}
    detected, elastic = annular_images(crystal, microscope, thicknesses_A, shape, **options).unbind(dim=-4)
    return detected + returned * (1 - elastic)
