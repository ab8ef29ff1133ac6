"""Fast, checked kernels behind the book *Unit Cell by Unit Cell*."""

__version__ = "0.1.0"
