"""The sentences that begin in each update, in `audit-*.jsonl`: a file a process, which the main one writes.

{"step": 7, "process": 0, "forward": [[row, epoch, shard, line, sentence], ...], "backward": ...}
"""

import json
import os
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from elmo_hf.corpus.windows import SentenceStart, Window
from elmo_hf.errors import ElmoError
from elmo_hf.files import append_line, read_lines
from elmo_hf.pretraining.processes import Processes


class Audit:
    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        numbers = range(processes.count) if processes.accelerator.is_main_process else ()
        self.paths = [folder / f"audit-{number}.jsonl" for number in numbers]

    def cut(self, step: int) -> None:
        """Drop the entries after a step. The run may have had more processes before it was resumed."""
        for path in self.folder.glob("audit-*.jsonl"):
            cut_audit(path, step)

    def gather(self, windows: list[Window]) -> list[list[list[SentenceStart]]]:
        """The sentences that begin in the windows of each process."""
        return list(gather_object([[window.sentence_starts for window in windows]]))

    def write(self, step: int, gathered: list[list[list[SentenceStart]]]) -> None:
        # Only the main process has files.
        for process, (path, windows) in enumerate(zip(self.paths, gathered, strict=False)):
            for starts in windows:
                append_line(path, json.dumps(entry_of(step, process, starts)))


def entry_of(step: int, process: int, starts: list[SentenceStart]) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": step, "process": process}
    for direction, name in enumerate(("forward", "backward")):
        entry[name] = [start[1:] for start in starts if start.direction == direction]
    return entry


def cut_audit(path: Path, step: int) -> None:
    """Drop the entries after the step from which the training goes on, and a last line that is cut off."""
    end = 0
    for number, line in enumerate(read_lines(path), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            is_later = json.loads(line.decode("utf-8"))["step"] > step
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ElmoError(
                f"{path}, line {number} is damaged; mend or remove this line, or move the file away."
            ) from None
        if is_later:
            break
        end += len(line)
    os.truncate(path, end)
