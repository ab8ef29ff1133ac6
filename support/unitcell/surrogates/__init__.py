"""Chapter 03: a Gaussian process between simulated images, and what one image can tell."""
