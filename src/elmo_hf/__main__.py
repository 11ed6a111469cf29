"""`python -m elmo_hf` is the `elmo-hf` command."""

from elmo_hf.cli import app

if __name__ == "__main__":
    app(prog_name="elmo-hf")
