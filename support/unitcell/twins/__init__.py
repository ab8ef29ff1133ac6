"""Simulated images whose every column is known: the specimens of both papers, as a microscope would record them."""
