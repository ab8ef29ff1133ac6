"""Independent truths from peers, for the checks that chapters make in the page."""

import abtem


def abtem_image(crystal, microscope, periods, gpts, *, sampling_A=0.08, slice_A=1.0):
    """ABF image of a static crystal by abTEM's real-space multislice.

    Parameters
    ----------
    crystal : ase.Atoms
        One cell; also the period of the probe.
    microscope : unitcell.scattering.Microscope
    periods : int
        Thickness in cells along the beam.
    gpts : (rows, columns)
        Probe positions over the cell, the first at the origin.
    sampling_A, slice_A : float
        Real-space sampling and slice thickness [Å].

    Returns
    -------
    ndarray (rows, columns), fraction of the incident electrons.
    """
    potential = abtem.Potential(
        crystal * (1, 1, periods),
        sampling=sampling_A,
        slice_thickness=slice_A,
        parametrization="lobato",
        projection="infinite",
    ).build()
    # A hard aperture, as in the scattering matrix: abTEM's default one is soft.
    probe = abtem.Probe(energy=microscope.energy_eV, semiangle_cutoff=microscope.semiangle_mrad, soft=False)
    probe.grid.match(potential)
    width, height = crystal.cell.lengths()[:2]
    scan = abtem.GridScan((0, 0), (width, height), gpts=gpts[::-1], endpoint=False)
    detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
    return probe.scan(potential, scan=scan, detectors=detector).compute(progress_bar=False).array.T
