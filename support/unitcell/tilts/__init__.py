"""Chapter 05: from an image to tilts column by column, densely, and as patterns in Glazer notation."""
