"""Runs from file to file: what goes where, what is finished, and going on after a break."""
