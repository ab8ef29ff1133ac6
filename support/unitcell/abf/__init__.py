"""Chapter 02: libraries of annular-bright-field images of tilted perovskites, and checks by other engines."""
