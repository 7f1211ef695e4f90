"""edgesnn: spiking networks trained for latency, compiled to integer event programs."""

__version__ = "0.1.0"
