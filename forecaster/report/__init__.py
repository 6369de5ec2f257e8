"""Finished results made into one HTML file."""
