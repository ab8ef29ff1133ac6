"""The `unitcell` command, by what it is for: the book, training a network, reading an image."""
