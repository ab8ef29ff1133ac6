"""One image in, one image out: reading what a microscope wrote, and recording what it would write."""
