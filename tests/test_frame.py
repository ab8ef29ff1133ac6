"""The frame: the table of chapters, profiles, what makes a chapter run again, and the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version

import nbformat
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from unitcell.book import workflow
from unitcell.book.parameters import declared_parameters, require_numbers
from unitcell.errors import InputError
from unitcell.project import project_root

ROOT = project_root()
PYPI = {"pytorch": "torch"}  # what conda-forge calls otherwise


def tiny_notebook(reads, writes):
    """A chapter that only passes files on."""
    v4 = nbformat.v4
    declared = "\n".join(["output_dir = None", "seed = 0", "trouble = None", *(f"{name} = None" for name in reads)])
    work = ["from pathlib import Path", *(f"assert Path({name}).is_file()" for name in reads)]
    work += [f"(Path(output_dir) / {name!r}).write_text(str(seed))" for name in writes]
    trouble = (
        "from unitcell.errors import InputError\n"
        "if trouble == 'input': raise InputError('No image at x.')\n"
        "1 / (trouble != 'plain')"
    )
    cells = [v4.new_code_cell(declared, metadata={"tags": ["parameters"]}), v4.new_code_cell(trouble)]
    kernel = {
        "kernelspec": {"display_name": "", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return v4.new_notebook(cells=[*cells, v4.new_code_cell("\n".join(work))], metadata=kernel)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A copy of the frame whose chapters do nothing but pass files on, built once."""
    folder = tmp_path_factory.mktemp("frame")
    for name in ("Snakefile", "data_manifest.yml"):
        shutil.copy2(ROOT / name, folder)
    shutil.copytree(ROOT / "support", folder / "support", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    (folder / "notebooks").mkdir()
    (folder / "profiles").mkdir()
    for name, step in workflow.CHAPTERS.items():
        writes = (*step.writes, *workflow.SIGNED)
        nbformat.write(tiny_notebook(step.reads, writes), folder / "notebooks" / f"{name}.ipynb")
    set_profile(folder)
    first = unitcell(folder, "build", "--profile", "smoke", "chapters")
    assert first.returncode == 0, first.stdout + first.stderr
    return folder


def set_profile(folder, **chapters):
    content = {"description": "tiny", "chapters": {name: {} for name in workflow.CHAPTERS} | chapters}
    (folder / "profiles" / "smoke.yml").write_text(yaml.safe_dump(content))


def unitcell(folder, *arguments):
    """Run the command as in a checkout at `folder`, from another directory."""
    environment = os.environ | {"PYTHONPATH": str(folder / "support")}
    command = [sys.executable, "-m", "unitcell", *arguments]
    return subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False)


def chapters_run(result):
    return re.findall(r"\[(\w+)\] done", result.stdout)


def test_build_runs_every_chapter_once_and_then_none(tiny):
    again = unitcell(tiny, "build", "--profile", "smoke", "chapters")
    assert again.returncode == 0
    assert chapters_run(again) == []
    for chapter in workflow.CHAPTERS:
        assert (tiny / "build" / "smoke" / chapter / f"{chapter}.ipynb").is_file()


def test_a_parameter_of_07_reruns_07_and_08_only(tiny):
    set_profile(tiny, **{"07_rvae": {"seed": 1}})
    result = unitcell(tiny, "build", "--profile", "smoke", "chapters")
    assert chapters_run(result) == ["07_rvae", "08_gmm_cvae"]
    assert "[07_rvae] cell 1/4" in result.stdout  # progress: chapter, cell, how many


@pytest.mark.parametrize(
    ("trouble", "words", "status"),
    [("input", "No image at x.", 2), ("plain", "ZeroDivisionError: division by zero", 1)],
)
def test_a_failing_cell_is_shown_in_three_lines(tiny, trouble, words, status):
    result = unitcell(tiny, "chapter", "08_gmm_cvae", "-p", "trouble", trouble, "--out", str(tiny / "mine"))
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    # A kernel that ends under load may leave a line of libzmq's own on the screen, before or after these.
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line.startswith(("[08", "    "))]) == 3
    lines = lines[lines.index("[08_gmm_cvae] failed in cell 3/4: from unitcell.errors import InputError") :]
    assert lines[1].strip() == words
    assert (tiny / "mine" / "failed.ipynb").is_file()
    assert not (tiny / "mine" / "classes.csv").exists()


def test_a_failing_chapter_fails_the_build_and_keeps_the_rest(tiny):
    set_profile(tiny, **{"07_rvae": {"seed": 1}, "08_gmm_cvae": {"trouble": "input"}})
    result = unitcell(tiny, "build", "--profile", "smoke", "chapters")
    assert result.returncode != 0
    assert "[08_gmm_cvae] failed in cell 3/4" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    set_profile(tiny, **{"07_rvae": {"seed": 1}})
    assert chapters_run(unitcell(tiny, "build", "--profile", "smoke", "chapters")) == ["08_gmm_cvae"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "--profile", "huge"], "There is no profile 'huge': the profiles are book, paper, smoke"),
        (["chapter", "09_fun"], "There is no chapter '09_fun': the chapters are 01_bayesian_chain"),
        (["chapter", "05_infer_tilts", "-p", "imgae", "a.tif"], "05_infer_tilts has no parameter 'imgae': it takes"),
    ],
)
def test_unknown_names_get_one_sentence(arguments, sentence):
    result = unitcell(ROOT, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"unitcell: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_unknown_parameter_of_a_profile_is_named(tiny):
    set_profile(tiny, **{"07_rvae": {"epoch": 3}})
    result = unitcell(tiny, "build", "--profile", "smoke")
    assert result.returncode == 2
    assert result.stderr == (
        "unitcell: smoke.yml: 07_rvae has no parameter 'epoch': it takes output_dir, seed, trouble, patches.\n"
    )


def test_a_number_written_as_text_is_named():
    with pytest.raises(InputError, match=r"rate is the text '1e-3', not a number: write it as 0\.001"):
        require_numbers({"rate": "1e-3"}, {"rate": 0.1}, "smoke.yml")
    require_numbers({"n": "auto", "image": "x.tif", "label": "12"}, {"n": 3, "image": None, "label": "a"}, "smoke.yml")


@pytest.mark.parametrize("name", ["smoke", "book", "paper"])
def test_profiles_fit_the_notebooks(name):
    assert list(workflow.load_profile(name).chapters) == list(workflow.CHAPTERS)


def test_contract_for_reruns():
    """The parameters that the issue promises, and the files that the workflow passes."""
    promised = {
        "02_simulate_abf": "energy_eV semiangle_mrad inner_mrad outer_mrad a_site b_site lattice_A "
        "thickness_A tilt_step_deg",
        "05_infer_tilts": "image pixel_size_A network output_dir seed",
        "06_find_atoms": "image pixel_size_A window_px representation output_dir seed",
        "07_rvae": "patches latent_dim epochs rotation_prior translation_prior output_dir seed",
        "08_gmm_cvae": "patches latent n_components covariance_type output_dir seed",
    }
    for chapter, step in workflow.CHAPTERS.items():
        declared = declared_parameters(workflow.notebook(chapter))
        assert {*promised.get(chapter, "output_dir seed").split(), *step.reads} <= set(declared), chapter
        assert declared["output_dir"] is None


@pytest.mark.parametrize("chapter", workflow.CHAPTERS)
def test_papermill_sees_the_declared_parameters(chapter):
    """Else plain papermill calls them unknown: its own parser wants no '=' in a comment."""
    path = workflow.notebook(chapter)
    assert list(papermill.inspect_notebook(path)) == list(declared_parameters(path))


def test_modules_of_a_notebook_are_found_through_each_other(tmp_path):
    cells = [nbformat.v4.new_code_cell("from unitcell.data import open_image")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
    found = {path.stem for path in workflow.modules(tmp_path / "n.ipynb")}
    assert found == {"data", "images", "frames", "image_headers", "artefacts", "errors", "project"}


def test_recipe_names_the_data_that_a_chapter_opens():
    assert "data:sto_110_abf" in workflow.load_profile("smoke").recipe("05_infer_tilts")
    assert "data:sto_110_abf" not in workflow.load_profile("smoke").recipe("03_gp_surrogate")


def test_05_to_08_do_not_wait_for_01_to_04():
    for chapter in list(workflow.CHAPTERS)[4:]:
        assert all(path.split("/")[0] >= "06" for path in workflow.CHAPTERS[chapter].reads.values())


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines):
    return {canonical(name): number for name, number in (re.split("==?", line) for line in lines)}


def lock():
    return pins((ROOT / "requirements.lock").read_text().splitlines())


def conda():
    *lines, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    stated = pins([line for line in lines if line != "pip"]) | pins(pip["pip"])
    return {PYPI.get(name, name): number for name, number in stated.items()}


def test_lock_is_complete_and_exact():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    for name in lock():
        for line in requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonical(requirement.name) in lock(), f"{name} needs {requirement.name}"


def test_conda_environment_has_the_versions_of_the_lock():
    stated = conda()
    assert stated.pop("python") == "3.11"
    assert stated == {name: lock()[name] for name in stated}


def test_conda_environment_has_what_the_project_imports():
    sources = [*(ROOT / "support").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    imported = re.findall(r"^ *(?:import|from) (\w+)", "\n".join(path.read_text() for path in sources), re.MULTILINE)
    providers = packages_distributions()
    needed = {canonical(providers[name][0]) for name in imported if name in providers} - {"unitcell"}
    assert needed <= set(conda()), needed - set(conda())


def test_the_lock_is_what_runs_here():
    differing = {name: version(name) for name, number in lock().items() if version(name).split("+")[0] != number}
    assert not differing


def test_committed_notebooks_hold_no_outputs():
    for chapter in workflow.CHAPTERS:
        notebook = json.loads(workflow.notebook(chapter).read_text())
        assert notebook["metadata"]["language_info"], "Snakemake calls a notebook without it corrupt"
        assert not any(cell.get("outputs") for cell in notebook["cells"])
