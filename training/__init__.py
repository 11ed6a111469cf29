"""Recipes to run, to read and to change; the wheel carries this folder as `elmo_hf.recipes`."""
