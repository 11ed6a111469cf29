"""Starts Python programs in a fraction of a second: one process imports the large libraries once, and each
program runs in a fork of it, with its own arguments, working directory and output.

    fork_server = ForkServer("from transformers import AutoModel", environment)
    code, out, err = fork_server.run(program, *arguments, cwd=folder)
    fork_server.close()

A program imports every other module as a new process would.
"""

import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

SERVE = """
import json, os, sys, traceback
{imports}
for line in sys.stdin:
    command = json.loads(line)
    if os.fork() == 0:
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT), number)
        os.chdir(command["cwd"])
        sys.argv, code = ["child", *command["arguments"]], 0
        try:
            exec(command["program"], {{"__name__": "__main__"}})
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""

WITHOUT_THE_PACKAGE = """
import sys
sys.modules["elmo_hf"] = None  # importing it fails, as where it is not installed
{program}
assert not any(name == "elmo_hf" and module for name, module in sys.modules.items())
"""


class Completed(NamedTuple):
    code: int
    out: str
    err: str


class ForkServer:
    def __init__(self, imports, environment):
        """imports: statements that the server process runs once; environment: of all programs."""
        self.folder, self.count = tempfile.TemporaryDirectory(), 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(imports=imports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.folder.name,
        )

    def run(self, program, *arguments, cwd=None):
        """Run the source text of a program and wait for its end."""
        self.count += 1
        out, err = (Path(self.folder.name) / f"{self.count}.{name}" for name in ("out", "err"))
        command = {
            "program": textwrap.dedent(program),
            "arguments": [*map(str, arguments)],
            "cwd": str(cwd or self.folder.name),
            "out": str(out),
            "err": str(err),
        }
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return Completed(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def run_without_the_package(self, program, *arguments):
        """Run a program for which `elmo_hf` is not installed; return its last printed line, as JSON."""
        program = WITHOUT_THE_PACKAGE.format(program=textwrap.dedent(program))
        completed = self.run(program, *arguments)
        assert completed.code == 0, completed.err
        return json.loads(completed.out.splitlines()[-1])

    def close(self):
        self.process.kill()  # its forks have ended
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.folder.cleanup()
