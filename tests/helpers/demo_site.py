"""The demo as its command serves it, in a process of its own."""

import socket
import subprocess
import sys

from tests.helpers.demo_models import save_models

# The command, in a process that logs each address it asks for that is not this machine's.
RUNNER = """
import sys
from pathlib import Path
log, hosts = Path(sys.argv.pop(1)), ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None)
def listen(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in hosts:
        with log.open("a") as file:
            file.write(f"{host}\\n")
sys.addaudithook(listen)
from elmo_hf.cli import app
app(prog_name="elmo-hf")
"""


def unused_port():
    """A port that no other process of the tests picks at the same time, as `free_port` might."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


class Site:
    def __init__(self, folder):
        self.folder, self.log = save_models(folder), folder / "requests.txt"
        self.port, self.errors = unused_port(), folder / "stderr.txt"
        self.address = f"http://127.0.0.1:{self.port}/"
        models = ["--model", str(folder / "model"), "--tagger", str(folder / "tagger")]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    RUNNER,
                    self.log,
                    "demo",
                    *models,
                    "--port",
                    str(self.port),
                    "--no-browser",
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.printed = self.process.stdout.readline()

    def stop(self):
        self.process.terminate()
        self.process.communicate()
