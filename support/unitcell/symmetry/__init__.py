"""Chapter 01: symmetry as a statement of belief, for a diatomic chain and for the columns of real lattices."""
