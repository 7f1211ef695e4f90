"""Spiking neurons, one a file, each with its equation."""
