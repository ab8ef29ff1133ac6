"""Pictures of all pages of a built book, for a person to look at: screenshots.py HTML_FOLDER PICTURE_FOLDER."""

import sys
from pathlib import Path

from browser import REMEDY, Browser, chromium
from PIL import Image


def main(html, pictures):
    """Write one PNG a page, light and dark."""
    if not chromium():
        sys.exit(REMEDY)
    pictures.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for side in ("light", "dark"):
            browser.dark(side == "dark")
            for page in sorted(html.glob("*.html")):
                browser.open(page)
                target = pictures / f"{page.stem}_{side}.png"
                Image.fromarray(browser.picture()).save(target)
                print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
