"""Tilts of crystals whose composition is known: simulated and compared instead of read by a network alone."""
