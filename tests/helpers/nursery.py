"""Starts Python programs in a fraction of a second: one process imports the large libraries once, and each
program is a fork of it, with arguments, a folder and an output of its own.

    nursery = Nursery("from transformers import AutoModel", environment)
    code, printed, errors = nursery.run(program, *arguments, cwd=folder)
    nursery.close()

What a program imports beside that is as new to it as to any other.
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


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Nursery:
    def __init__(self, imports, environment):
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
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def run_without_the_package(self, program, *arguments):
        """What is printed last, which is JSON."""
        program = WITHOUT_THE_PACKAGE.format(program=textwrap.dedent(program))
        done = self.run(program, *arguments)
        assert done.code == 0, done.err
        return json.loads(done.out.splitlines()[-1])

    def close(self):
        self.process.kill()  # all that it started has ended
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.folder.cleanup()
