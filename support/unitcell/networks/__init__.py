"""Chapter 04: networks that read tilts from windows; what they are trained on, tested on, and say of themselves."""
