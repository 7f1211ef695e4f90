"""Training for latency; imports torch."""
