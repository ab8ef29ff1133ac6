"""The lattice of an image: its vectors, its columns, and how it is bent."""
