"""Crystals as their owners write them."""

import pytest
from unitcell.errors import InputError
from unitcell.known_crystals.materials import parse_material


@pytest.mark.parametrize(
    ("text", "a_site", "b_site"),
    [("Sr,Ti,3.905", {"Sr": 1.0}, {"Ti": 1.0}),
     (" La0.3Sr0.7 , Al0.65Ta0.35,3.868", {"La": 0.3, "Sr": 0.7}, {"Al": 0.65, "Ta": 0.35})],
)  # fmt: skip
def test_materials_are_read(text, a_site, b_site):
    material = parse_material(text)
    assert (material.a_site, material.b_site) == (a_site, b_site)
    assert material.stand_ins == (max(a_site, key=a_site.get), max(b_site, key=b_site.get))


@pytest.mark.parametrize(
    "text",
    ["", "Sr,Ti", "Sr,Ti,39", "Xx,Ti,3.9", "La0.7Sr0.7,Mn,3.88", "sr,Ti,3.9", "Sr,Ti,3.9,4", "Sr,Sr,3.9", "Sr-,Ti,4"],
)
def test_what_is_no_material_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match="give A site, B site and lattice parameter"):
        parse_material(text)
