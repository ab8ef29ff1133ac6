"""The manifest and its loader: mirror, cache, download, and a checksum before every use."""

import hashlib

import pytest
import yaml
from unitcell import data
from unitcell.data import DataUnavailable, fetch, load_manifest
from unitcell.errors import InputError
from unitcell.project import project_root

CONTENT = b"an image"
ENTRY = {
    "file": "image.bin",
    "url": "https://example.org/image.bin",
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "bytes": len(CONTENT),
    "licence": "CC0",
    "role": "downloaded",
    "description": "A test.",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one file, with an empty mirror, an empty cache and no network."""
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setenv(data.MIRROR, str(tmp_path / "mirror"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "mirror").mkdir()
    state(tmp_path)
    return tmp_path


def state(folder, **changes):
    (folder / "data_manifest.yml").write_text(yaml.safe_dump({"image": ENTRY | changes}))


def test_mirror_is_used_and_verified(project):
    (project / "mirror" / "image.bin").write_bytes(CONTENT)
    assert fetch("image").read_bytes() == CONTENT


def test_wrong_checksum_in_the_mirror_is_refused(project):
    (project / "mirror" / "image.bin").write_bytes(b"another image")
    with pytest.raises(
        InputError, match=r"image\.bin has SHA-256 .*, but data_manifest\.yml expects .*: correct the copy"
    ):
        fetch("image")


def test_wrong_checksum_of_a_committed_file_names_its_command(project):
    state(project, role="committed", command="python make.py")
    (project / "image.bin").write_bytes(b"edited")
    with pytest.raises(InputError, match=r"expects .*: restore it with: python make\.py"):
        fetch("image")
    (project / "image.bin").unlink()
    with pytest.raises(InputError, match=r"image\.bin is missing: restore it with: python make\.py"):
        fetch("image")


def test_cached_copy_is_used_and_verified(project):
    (project / "cache").mkdir()
    (project / "cache" / "image.bin").write_bytes(CONTENT)
    assert fetch("image").read_bytes() == CONTENT
    (project / "cache" / "image.bin").write_bytes(b"spoilt")
    with pytest.raises(DataUnavailable):  # a spoilt copy is never used: it is fetched again, and there is no network
        fetch("image")


def test_neither_mirror_nor_network(project):
    with pytest.raises(
        DataUnavailable, match=r"image\.bin is neither in the folder .* set UNITCELL_DATA_MIRROR, or go online once"
    ):
        fetch("image")
    assert not list((project / "cache").glob("image.bin"))


def test_unknown_name_lists_the_known(project):
    with pytest.raises(InputError, match=r"data_manifest\.yml has no entry 'imag': it has image"):
        fetch("imag")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "abc"}, r"image → sha256"),
        ({"role": "borrowed"}, r"image → role"),
        ({"url": "ftp://example.org/x"}, r"image → url"),
        ({"bytes": 0}, r"image → bytes"),
        ({"colour": "red"}, r"image: .*'colour' was unexpected"),
    ],
)
def test_manifest_breaking_its_schema_is_refused(project, changes, words):
    state(project, **changes)
    with pytest.raises(InputError, match=rf"breaks its schema at {words}"):
        load_manifest()


def test_manifest_of_the_project_is_true():
    manifest = load_manifest()
    for name, entry in manifest.items():
        if entry["role"] == "committed":
            assert entry.get("command"), f"{name}: how was it made?"
            path = fetch(name)
            assert path.stat().st_size == entry["bytes"]
        else:
            assert entry["url"], name
    kept = [p for kind in ("*.safetensors", "*.nc") for p in (project_root() / "support").rglob(kind)]
    weights = {str(p.relative_to(project_root())) for p in kept}
    assert weights <= {entry["file"] for entry in manifest.values()}, "committed files that the manifest does not name"
