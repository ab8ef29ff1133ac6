"""Chapters 06 to 08 rerun over systems, windows, representations, seeds and numbers of classes.

Each run is a papermill run of one chapter with a folder of its own, so that a changed setting reruns only what depends
on it: atoms once a system and representation, with the widest window, from which the narrower sub-images are cut; the
rVAE once a seed of these; the mixture once a number of classes of those. One setting of each system, the paper's own,
is run with every seed, the others with the first. `sweep.smk` turns `cuts` and `jobs` into a graph; run it through
`unitcell sweep`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from unitcell.book.workflow import CHAPTERS, SIGNED, recipe
from unitcell.errors import InputError

FIND, LEARN, SORT = "06_find_atoms", "07_rvae", "08_gmm_cvae"
SEEDS = (0, 1, 2, 3, 4)
SUB_IMAGES = 3000  # of a setting: those on the scan lines in the middle of the image

# What the sweep says to each chapter, whatever the profile: the paper's pixels, and nothing of what the chapters do
# beside their own image (doses, stacks of known orientation, comparisons of routes).
FINDING = {"binning": 1, "a_spacing_A": None, "doses_e_per_A2": [100000.0], "twin_field_px": 400}
LEARNING = {"pixels": 96, "twin_count": 0}
PRESENTATIONS = {24: 24000, 32: 45000, 36: 60000, 48: 60000}  # by window [px]
DETAIL = {24: 4.0, 32: 4.0, 36: 4.0, 48: 12.0}  # a decoder as smooth as for narrower ones stays at the mean image
SORTING = {"turned_epochs": 0, "turned_count": 64, "cvae_epochs": 2}
TURNING = {"turned_epochs": 12, "jrvae_epochs": 0, "turned_count": 1200, "least_ari": -1.0}  # once a reference setting


@dataclass(frozen=True)
class System:
    """What is swept of one image.

    Parameters
    ----------
    image : str
        As chapter 06 takes it.
    windows : tuple of int
        Edges of the sub-images [px].
    reference : tuple of (int, str)
        Window and representation of the setting that the paper's figures show.
    components : tuple of int
        Numbers of classes of the reference setting, that of the structure first; the last, the paper's, of the others.
    encoders : dict of str to {'polar', 'dense', 'convolutional'}
        Of chapter 07 for each representation: the paper's is dense.
    """

    image: str
    windows: tuple
    reference: tuple
    components: tuple
    encoders: dict


REPRESENTATIONS = ("raw", "segmented")
ON_RINGS = dict.fromkeys(REPRESENTATIONS, "polar")
AS_PAPER = {"raw": "dense", "segmented": "polar"}  # a dense one leaves its mean image late, and on segmented ones never
SYSTEMS = {
    "lsmo_nio": System("twin:lsmo_nio", (24, 36, 48), (36, "raw"), (3, 4), AS_PAPER),
    "sr3fe2o7": System("twin:sr3fe2o7", (24, 32, 48), (32, "raw"), (7, 3), ON_RINGS),
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
    def is_reference(self):
        """Whether every seed and number of classes is run."""
        return (self.window_px, self.representation) == SYSTEMS[self.system].reference

    @property
    def components(self):
        """Numbers of classes that are tried: that of the structure first."""
        return SYSTEMS[self.system].components[0 if self.is_reference else -1 :]

    @property
    def learning(self):
        """Parameters of chapter 07."""
        encoder = SYSTEMS[self.system].encoders[self.representation]
        window = {"presentations": PRESENTATIONS[self.window_px], "detail": DETAIL[self.window_px]}
        return LEARNING | window | {"encoder": encoder}

    def seeds(self, count=None):
        """Seeds that are run, of the first `count` (None: of all)."""
        return SEEDS[: count if self.is_reference else 1]


SETTINGS = {
    setting.name: setting
    for system, swept in SYSTEMS.items()
    for window in swept.windows
    for representation in REPRESENTATIONS
    for setting in [Setting(system, window, representation)]
}


@dataclass(frozen=True)
class Cut:
    """The sub-images of a setting, from those of the widest window: see `sweep_cuts.narrow`."""

    source: str
    target: str
    window_px: int


@dataclass(frozen=True)
class Job:
    """One run of one chapter."""

    chapter: str
    folder: str
    parameters: dict
    reads: tuple = ()
    priority: int = 9

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
        return _made_of(self.chapter) | {"parameters": repr(sorted(self.parameters.items()))}

    @property
    def arguments(self):
        """Of `unitcell chapter`: a list of words."""
        given = [word for key, value in self.parameters.items() for word in ("-p", key, str(value))]
        return [self.chapter, *given, "--out", self.folder]


@functools.cache
def _made_of(chapter):
    """Digests of a chapter's code and data, whatever its parameters: many runs share them."""
    return recipe(chapter, {})


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
    """Folders of the sub-images and of the runs of chapters 07 and 08 of a setting, relative to the project."""
    top = sweep_folder(profile) / setting.name
    return top, top / f"seed{seed}" / LEARN, top / f"seed{seed}" / f"k{components}" / SORT


def cuts(profile, settings):
    """What is cut from the widest sub-images: list of Cut."""
    targets = [(setting, str(folders(profile, setting, 0, 0)[0] / "patches.nc")) for setting in settings]
    return [Cut(f"{_found_in(profile, s)}/patches.nc", target, s.window_px) for s, target in targets]


def _found_in(profile, setting):
    """Folder of chapter 06's run for a setting's system and representation."""
    return f"{sweep_folder(profile)}/{setting.system}-{setting.representation}/{FIND}"


def jobs(profile, settings, seeds=None):
    """All runs of chapters in a sweep, each after those that it reads.

    Parameters
    ----------
    profile : unitcell.book.workflow.Profile
        Its parameters of chapters 06 to 08 hold wherever the sweep says nothing.
    settings : list of Setting
    seeds : int, optional
        How many, of the reference settings; None: all.

    Returns
    -------
    list of Job
    """
    found = {_found_in(profile, setting): setting for setting in settings}
    first = [Job(FIND, folder, _finding(profile, setting)) for folder, setting in found.items()]
    return first + [job for setting in settings for job in _jobs_of(profile, setting, seeds)]


def _finding(profile, setting):
    system = SYSTEMS[setting.system]
    cut = {"window_px": max(system.windows), "representation": setting.representation}
    return profile.chapters[FIND] | FINDING | {"image": system.image} | cut


def _jobs_of(profile, setting, seeds):
    """Runs of chapters 07 and 08; what is needed for a first look at every setting goes first."""
    learning = profile.chapters[LEARN] | setting.learning
    for seed in setting.seeds(seeds):
        top, learn, _ = folders(profile, setting, seed, 0)
        patches, latent, rvae = (str(p) for p in (top / "patches.nc", learn / "latent.csv", learn / "rvae.safetensors"))
        early = (8 if setting.is_reference else 7) if seed == 0 else 5
        yield Job(LEARN, str(learn), learning | {"patches": patches, "seed": seed}, (patches,), early)
        for n, count in enumerate(setting.components):
            turned = setting.is_reference and seed == n == 0
            sorting = profile.chapters[SORT] | SORTING | (TURNING if turned else {})
            given = {"patches": patches, "latent": latent, "rvae": rvae, "n_components": count, "seed": seed}
            folder = str(folders(profile, setting, seed, count)[2])
            yield Job(SORT, folder, sorting | given, (patches, latent, rvae), early if n == 0 or seed == 0 else 1)
