"""Input codings and readouts, one a file."""
