"""Chapters 07 to 09: local environments from sub-images, by rVAE, mixtures and conditional VAE, and their sweep."""
