"""From an ordinary network to a program of canonic signed spikes (or of rates), measured on data."""
