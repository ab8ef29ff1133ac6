"""Chapters 06 to 08 rerun over systems, windows, representations, seeds and numbers of classes.

Each run is a papermill run of one chapter with a folder of its own, so that a changed setting reruns only what depends
on it: atoms and sub-images once a window and representation, the rVAE once a seed of these, the mixture once a number
of classes of those. `sweep.smk` turns `jobs` into a graph; run it through `unitcell sweep`.
"""

from dataclasses import dataclass
from pathlib import Path

from unitcell.book.workflow import CHAPTERS, SIGNED, recipe
from unitcell.errors import InputError

FIND, LEARN, SORT = "06_find_atoms", "07_rvae", "08_gmm_cvae"
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class System:
    """What is swept of one image.

    Parameters
    ----------
    image : str
        As chapter 06 takes it.
    windows : tuple of int
        Edges of the sub-images [px].
    components : tuple of int
        Numbers of classes; the first is that of the structure.
    representations : tuple of str
    more : dict
        Further parameters by chapter.
    """

    image: str
    windows: tuple
    components: tuple
    representations: tuple = ("raw", "segmented")
    more: tuple = ()


SYSTEMS = {
    "lsmo_nio": System("twin:lsmo_nio", (24, 36, 48), (3, 4, 5)),
    "sr3fe2o7": System("twin:sr3fe2o7", (24, 32, 48), (7, 6, 3)),
}


@dataclass(frozen=True)
class Setting:
    """One sub-image stack: a system, a window [px] and a representation."""

    system: str
    window_px: int
    representation: str

    @property
    def name(self):
        """For instance lsmo_nio-36-raw: its folder."""
        return f"{self.system}-{self.window_px}-{self.representation}"

    @property
    def components(self):
        """Numbers of classes that are tried."""
        return SYSTEMS[self.system].components


SETTINGS = {
    setting.name: setting
    for system, swept in SYSTEMS.items()
    for window in swept.windows
    for representation in swept.representations
    for setting in [Setting(system, window, representation)]
}


@dataclass(frozen=True)
class Job:
    """One run of one chapter."""

    chapter: str
    folder: str
    parameters: dict
    reads: tuple = ()

    @property
    def name(self):
        """Name of the rule."""
        return self.folder.replace("/", "_").replace("-", "_")

    @property
    def outputs(self):
        """Files that the finished run leaves."""
        names = (*CHAPTERS[self.chapter].writes, *SIGNED, f"{self.chapter}.ipynb")
        return [f"{self.folder}/{name}" for name in names]

    @property
    def recipe(self):
        """What makes it run again."""
        return recipe(self.chapter, self.parameters)

    @property
    def arguments(self):
        """Of `unitcell chapter`: a list of words."""
        given = [word for key, value in self.parameters.items() for word in ("-p", key, str(value))]
        return [self.chapter, *given, "--out", self.folder]


def chosen_settings(names=()):
    """Settings of these names, or all; InputError for one that is not in the sweep."""
    for name in names:
        if name not in SETTINGS:
            raise InputError(f"There is no setting '{name}' in the sweep: it has {', '.join(SETTINGS)}.")
    return [SETTINGS[name] for name in (names or SETTINGS)]


def sweep_folder(profile):
    """Folder of a profile's sweep, relative to the project."""
    return Path("build") / profile.name / "sweep"


def folders(profile, setting, seed, components):
    """Folders of the runs of chapters 06, 07 and 08 of a setting, relative to the project."""
    top = sweep_folder(profile) / setting.name
    return top / FIND, top / f"seed{seed}" / LEARN, top / f"seed{seed}" / f"k{components}" / SORT


def jobs(profile, settings, seeds=SEEDS):
    """All runs of a sweep, each after those that it reads.

    Parameters
    ----------
    profile : unitcell.book.workflow.Profile
        Its parameters of chapters 06 to 08 hold wherever the sweep says nothing.
    settings : list of Setting
    seeds : tuple of int

    Returns
    -------
    list of Job
    """
    return [job for setting in settings for job in _jobs_of(profile, setting, seeds)]


def _jobs_of(profile, setting, seeds):
    system = SYSTEMS[setting.system]
    base = {chapter: profile.chapters[chapter] | dict(system.more).get(chapter, {}) for chapter in (FIND, LEARN, SORT)}
    find, _, _ = folders(profile, setting, 0, 0)
    patches = str(find / "patches.nc")
    cut = {"image": system.image, "window_px": setting.window_px, "representation": setting.representation}
    yield Job(FIND, str(find), base[FIND] | WHOLE | cut)
    for seed in seeds:
        _, learn, _ = folders(profile, setting, seed, 0)
        yield Job(LEARN, str(learn), base[LEARN] | {"patches": patches, "seed": seed}, (patches,))
        latent, rvae = str(learn / "latent.csv"), str(learn / "rvae.safetensors")
        for count in setting.components:
            _, _, sort = folders(profile, setting, seed, count)
            given = {"patches": patches, "latent": latent, "rvae": rvae, "n_components": count, "seed": seed}
            yield Job(SORT, str(sort), base[SORT] | BRIEF | given, (patches, latent, rvae))


WHOLE = {"binning": 1, "a_spacing_A": None}  # of chapter 06: the paper's pixels, whatever the crystal
BRIEF = {"turned_epochs": 0, "cvae_epochs": 4}  # of chapter 08: without its comparisons, which concern its own image
