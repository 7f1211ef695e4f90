"""What a trained network does, measured: tables, JSON and plots."""
