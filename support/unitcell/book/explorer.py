"""A library of images under the reader's hand: sliders that work in the published page, without a server.

The page carries each distinct image once, as a sprite in one PNG, and a few lines of JavaScript turn it into every
sign combination: a mirror in x where v is negative, a shift by one column where v·u·γ is (see `simulation`).
"""

import base64
import html
import io
import json

import numpy as np
from IPython.display import HTML, display
from PIL import Image

from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.errors import InputError

ZOOM = 8  # screen pixels per pixel of the image


def show_explorer(stack, caption, alt, start=None):
    """Display sliders for α, β, γ and thickness, and the image of two cells that belongs to them.

    Parameters
    ----------
    stack : xarray.Dataset
        From `unitcell.abf.simulation.simulate_stack`, on a full grid of tilts.
    caption : str
    alt : str
        Describes the image to those who cannot see it.
    start : dict, optional
        Where the sliders stand at first: alpha, beta, gamma [degrees] and thickness [Å]; by default 0 and the middle.
    """
    display(HTML(explorer_html(stack, caption, alt, start)))


def explorer_html(stack, caption, alt, start=None):
    """The explorer as HTML that needs nothing else. Parameters as in `show_explorer`."""
    keys, sprite, limits = sprite_sheet(stack)
    rows, columns, depths = stack.sizes["y"], stack.sizes["x"], stack.thickness.values
    grid, step = np.unique(stack.gamma.values), _step(stack)
    settings = {
        "rows": rows, "columns": columns, "zoom": ZOOM, "keys": keys, "step": step, "thickness": depths.tolist(),
        "limits": limits.astype(float).round(3).tolist(), "pixel": float(stack.x.values[1] - stack.x.values[0]),
    }  # fmt: skip
    start = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "thickness": float(depths[len(depths) // 2])} | (start or {})
    sliders = [
        _slider(name, label, grid[0], grid[-1], step, grid[np.abs(grid - start[name]).argmin()])
        for name, label in (("alpha", "α"), ("beta", "β"), ("gamma", "γ"))
    ]
    nearest = int(np.abs(depths - start["thickness"]).argmin())
    sliders.append(_slider("thickness", "thickness", 0, len(depths) - 1, 1, nearest))
    fields = {
        "SLIDERS": "".join(sliders), "ALT": html.escape(alt, quote=True), "CAPTION": html.escape(caption),
        "WIDTH": str(2 * columns * ZOOM), "HEIGHT": str(rows * ZOOM), "SPRITE": sprite,
        "SETTINGS": json.dumps(settings),
    }  # fmt: skip
    page = TEMPLATE
    for name, value in fields.items():
        page = page.replace(f"@{name}@", value)
    return page


def sprite_sheet(stack):
    """All distinct images in one grey PNG: a row for each thickness, a column for each (|v|, |u|, |γ|).

    Returns
    -------
    keys : dict of str to int
        "|α−β|,|α+β|,|γ|" in steps of the grid → column.
    sprite : str
        The PNG in base64.
    limits : ndarray, shape (T, 2)
        Intensities that are black and white at each thickness.
    """
    tilts = np.stack([stack[name].values for name in ("alpha", "beta", "gamma")], axis=-1)
    octant = np.flatnonzero((np.stack(to_projection(*tilts.T), axis=-1) > -1e-6).all(axis=1))
    alpha, beta, gamma = np.rint(tilts[octant] / _step(stack)).astype(int).T
    names = [f"{a - b},{a + b},{c}" for a, b, c in zip(alpha, beta, gamma, strict=True)]
    images = stack.abf.values[octant]
    if not len(images) or len(set(names)) < len(names):
        raise InputError(
            "The explorer needs a full grid of tilts: give a stack from simulate_stack(tilt_grid(...), ...)."
        )
    limits = np.stack([images.min(axis=(0, 2, 3)), images.max(axis=(0, 2, 3))], axis=-1)
    low, high = (limits[:, side, None, None] for side in (0, 1))
    grey = np.round(255 * (images - low) / np.maximum(high - low, 1e-9)).astype(np.uint8)
    sheet = grey.transpose(1, 2, 0, 3).reshape(grey.shape[1] * grey.shape[2], -1)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="png", optimize=True)
    return {name: number for number, name in enumerate(names)}, base64.b64encode(buffer.getvalue()).decode(), limits


def _step(stack):
    """Step of the tilt grid [degrees]."""
    grid = np.unique(stack.gamma.values)
    if len(grid) < 2:
        raise InputError("The explorer needs a grid of tilts: give a stack with more than one γ.")
    return float(grid[1] - grid[0])


def _slider(name, label, low, high, step, value):
    """One labelled slider with its reading."""
    return (
        f'<label style="display:flex;gap:0.6em;align-items:center"><span style="width:5em">{label}</span>'
        f'<input type="range" name="{name}" min="{low}" max="{high}" step="{step}" value="{value}" '
        'style="flex:1">'
        '<output style="width:4.5em;text-align:right"></output></label>'
    )


TEMPLATE = """<figure class="unitcell unitcell-explorer">
<canvas role="img" aria-label="@ALT@" width="@WIDTH@" height="@HEIGHT@"
  style="display:block;margin:0 auto;max-width:100%"></canvas>
<div style="max-width:@WIDTH@px;margin:0.6rem auto">@SLIDERS@<p style="text-align:left" data-reading></p></div>
<figcaption>@CAPTION@</figcaption>
<script>
(() => {
  const figure = document.currentScript.closest("figure"), settings = @SETTINGS@;
  const {rows, columns, zoom, keys, limits, step, thickness, pixel} = settings;
  const pen = figure.querySelector("canvas").getContext("2d"), sprite = new Image();
  const sliders = Object.fromEntries([...figure.querySelectorAll("input")].map(e => [e.name, e]));
  const say = (slider, words) => { slider.parentElement.querySelector("output").textContent = words; };
  const degrees = angle => String(Math.round(10 * angle) / 10).replace("-", "−") + "°";
  function draw() {
    const [alpha, beta, gamma, depth] = ["alpha", "beta", "gamma", "thickness"].map(n => Number(sliders[n].value));
    const v = alpha - beta, u = alpha + beta;
    const column = keys[[v, u, gamma].map(x => Math.round(Math.abs(x) / step)).join(",")];
    const shifted = [v, u, gamma].filter(x => x < 0).length % 2 === 1;
    const mirrored = shifted !== v < 0;
    pen.imageSmoothingEnabled = false;
    for (let cell = -2; cell < 3; cell++) {
      const left = cell * columns + (shifted ? columns / 2 : 0) + (mirrored ? 1 : 0);
      pen.setTransform(mirrored ? -zoom : zoom, 0, 0, zoom, left * zoom, 0);
      pen.drawImage(sprite, column * columns, depth * rows, columns, rows, 0, 0, columns, rows);
    }
    bar();
    for (const name of ["alpha", "beta", "gamma"]) say(sliders[name], degrees(Number(sliders[name].value)));
    say(sliders.thickness, thickness[depth] + " Å");
    const copy = [mirrored && "mirrored in x", shifted && "shifted by one column"].filter(Boolean).join(" and ");
    figure.querySelector("[data-reading]").textContent =
      `v = ${degrees(v / Math.SQRT2)}, u = ${degrees(u / Math.SQRT2)}, γ = ${degrees(gamma)}: distinct image ` +
      `${column + 1} of ${Object.keys(keys).length}${copy && ", " + copy}. ` +
      `Black is ${limits[depth][0]}, white ${limits[depth][1]} of the incident electrons.`;
  }
  function bar() {
    pen.setTransform(1, 0, 0, 1, 0, 0);
    const length = 4 / pixel * zoom, bottom = rows * zoom - 12;
    pen.fillStyle = "black"; pen.fillRect(10, bottom - 3, length + 4, 9);
    pen.fillStyle = "white"; pen.fillRect(12, bottom - 1, length, 5);
    pen.font = "bold 14px sans-serif"; pen.lineWidth = 3; pen.strokeText("4 Å", 12, bottom - 8);
    pen.fillText("4 Å", 12, bottom - 8);
  }
  for (const slider of Object.values(sliders)) slider.addEventListener("input", draw);
  sprite.onload = draw;
  sprite.src = "data:image/png;base64,@SPRITE@";
})();
</script>
</figure>"""
