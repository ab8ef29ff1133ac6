"""Chapter 06: finding atoms, refining their places, judging both, and cutting sub-images around them."""
