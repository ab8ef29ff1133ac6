"""`unitcell tilts`, `report` and `microscope`: from somebody's image to its tilts, four chapters, or its apertures."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unitcell.errors import InputError

ImagePath = Annotated[Path, typer.Argument(help="ABF image: dm3, dm4, emd, hspy, zspy, tif, mrc, ser, png or npy.")]
PixelSize = Annotated[
    float | None, typer.Option("--pixel-size-A", help="Å per pixel, where the file does not say or is wrong.")
]
Frame = Annotated[str | None, typer.Option(help="Of a series: its number from 0, or 'mean' for all, registered.")]
Invert = Annotated[bool, typer.Option("--invert", help="Turn a dark-field image's contrast round, with a warning.")]
LatticeParameter = Annotated[
    float | None, typer.Option("--lattice-A", help="Expected pseudo-cubic lattice parameter [Å].")
]
Weights = Annotated[
    Path | None, typer.Option(help="tilt_network.safetensors of your microscope [the committed one that fits best].")
]
Semiangle = Annotated[
    float | None, typer.Option("--semiangle-mrad", help="Of the probe [mrad], where the file does not say or is wrong.")
]
Energy = Annotated[float | None, typer.Option("--energy-eV", help="Of the electrons [eV], likewise.")]
MicroscopeFile = Annotated[
    Path | None, typer.Option("--microscope", help="YAML file of the microscope that took the image, as for 'train'.")
]
Crystals = Annotated[
    list[str] | None,
    typer.Option(
        "--crystal",
        help="What the specimen is made of, where it is known: A site, B site, lattice parameter [Å], such as "
        "La0.7Sr0.3,Mn,3.875. Again for each crystal. Takes minutes; less sure near interfaces.",
    ),
]
Seed = Annotated[int, typer.Option()]


def add_to(app):
    """Add the commands of this module to a typer application."""
    for command in (tilts, report, microscope):
        app.command()(command)


def tilts(
    image: ImagePath,
    pixel_size_A: PixelSize = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for the results [IMAGE's name].")] = None,
    frame: Frame = None,
    invert: Invert = False,
    lattice_A: LatticeParameter = None,
    network: Weights = None,
    semiangle_mrad: Semiangle = None,
    energy_eV: Energy = None,
    microscope: MicroscopeFile = None,
    crystal: Crystals = None,
):
    """Read octahedral tilts off one ABF image: tilts.csv, regions.csv, tilt_maps.nc and report.html."""
    from unitcell.known_crystals.columns import known_crystals
    from unitcell.micrographs.images import read_image
    from unitcell.networks.tilt_network import load_network
    from unitcell.tilts.analysis import all_maps, analyse, same_microscope
    from unitcell.tilts.dense import load_dense_network
    from unitcell.tilts.network_choice import choose_network
    from unitcell.tilts.tilt_report import save_report, terminal_lines

    stated = _stated(semiangle_mrad, energy_eV, microscope)
    micrograph = read_image(image, pixel_size_A, frame=_frame(frame), invert=invert)
    micrograph = replace(micrograph, recorded=micrograph.recorded | stated)
    choice = None if network else choose_network(micrograph.recorded)
    model = load_network(choice.path if choice else network)
    typer.echo(f"image     {micrograph.name}, {' × '.join(map(str, micrograph.intensity.shape[::-1]))} px", err=True)
    if choice:
        typer.echo(f"network   {choice.reason}", err=True)
    known = known_crystals(crystal, model.card) if crystal else None
    analysis = analyse(micrograph, model, lattice_A, known=known, progress=True)
    dense_network, dense_card = load_dense_network()
    if not same_microscope(dense_card, model.card):
        dense_network = None
        typer.echo("The dense map is left out: its network is of another microscope.", err=True)
    maps = all_maps(analysis, dense_network, progress=True)
    page = save_report(analysis, maps, out or _folder_of(image, "tilts"), model.card, choice.reason if choice else "")
    for line in terminal_lines(analysis):
        typer.echo(line)
    typer.echo(f"report    {page}")


def report(
    image: ImagePath,
    pixel_size_A: PixelSize = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for the results [IMAGE's name].")] = None,
    frame: Frame = None,
    invert: Invert = False,
    lattice_A: LatticeParameter = None,
    network: Weights = None,
    semiangle_mrad: Semiangle = None,
    energy_eV: Energy = None,
    microscope: MicroscopeFile = None,
    crystal: Crystals = None,
    seed: Seed = 0,
):
    """Run chapters 05 to 08 on one image and put them into one HTML page that needs nothing else."""
    from unitcell.commands.chapter_report import ChapterFailed, report_of_image
    from unitcell.micrographs.images import read_image

    chosen = _frame(frame)
    stated = _stated(semiangle_mrad, energy_eV, microscope)
    micrograph = read_image(image, pixel_size_A, frame=chosen, invert=invert)
    micrograph = replace(micrograph, recorded=micrograph.recorded | stated)
    reading = {"image": str(image.resolve()), "pixel_size_A": pixel_size_A, "frame": chosen, "invert": invert}
    reading |= {"lattice_A": lattice_A, "microscope": stated, "crystals": crystal or None}
    try:
        page = report_of_image(micrograph, out or _folder_of(image, "report"), reading, network=network, seed=seed)
    except ChapterFailed as failure:
        if failure.exit_status == 2:
            raise InputError(f"{failure.reason} (The notebook up to there: {failure.notebook})") from failure
        raise InputError(" ".join(line.strip() for line in str(failure).splitlines())) from failure
    typer.echo(f"report    {page}")


def microscope(
    image: ImagePath,
    pixel_size_A: PixelSize = None,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="YAML file to write [IMAGE's name].")] = None,
    frame: Frame = None,
    crystal: Annotated[str, typer.Option(help="A cation, B cation, lattice parameter [Å].")] = "Sr,Ti,3.905",
    energy_eV: Annotated[float, typer.Option("--energy-eV", help="Of the electrons [eV].")] = 2e5,
):
    """Estimate apertures from an image of a known, untilted crystal, for `unitcell train --microscope`; minutes."""
    from unitcell.micrographs.images import read_image
    from unitcell.networks.microscope_estimate import estimate_microscope, known_crystal, mean_window, save_microscope

    material = known_crystal(crystal)
    micrograph = read_image(image, pixel_size_A, frame=_frame(frame))
    ends = estimate_microscope(mean_window(micrograph, material[2]), material, energy_eV)
    for end in ends:
        scope = end.microscope(energy_eV)
        typer.echo(
            f"{scope.semiangle_mrad:5.1f} mrad, detector {scope.inner_mrad:.1f} to {scope.outer_mrad:.1f} mrad, "
            f"{end.values['thickness_A']:.0f} Å thick: {end.residual:.2%} of the image is left unexplained"
        )
    typer.echo(str(save_microscope(ends[0], material, energy_eV, out or Path(f"{image.stem}_microscope.yml"))))


def _stated(semiangle_mrad, energy_eV, path):
    """What options and a microscope's file say of the microscope, options first: dict for `StemImage.recorded`."""
    from unitcell.networks.your_microscope import load_microscope_file
    from unitcell.tilts.network_choice import WORDS

    of_file = load_microscope_file(path)[0].as_attributes() if path else {}
    said = {"semiangle_mrad": semiangle_mrad, "energy_eV": energy_eV}
    return {key: of_file[key] for key in WORDS if key in of_file} | {k: v for k, v in said.items() if v is not None}


def _frame(text):
    """A frame's number, 'mean', or None."""
    try:
        return ast.literal_eval(text) if text is not None else None
    except (ValueError, SyntaxError, TypeError):
        return text


def _folder_of(image, what):
    """Where the results of an image go by default: a folder named after it, in the working directory."""
    return Path(f"{image.stem}_{what}")
