"""The parts of probes.py: what is read, what is measured, and how it is told and drawn."""
