"""The sentences that each update reads, in `audit-*.jsonl`: a file a process, which the main one writes."""

from pathlib import Path

import numpy as np
from accelerate.utils import gather_object

from elmo_hf.corpus.windows import AuditLog, Window, cut_audit
from elmo_hf.pretraining.processes import Processes


class Audit:
    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        numbers = range(processes.count) if processes.accelerator.is_main_process else ()
        self.logs = [AuditLog(folder / f"audit-{number}.jsonl", number) for number in numbers]

    def cut(self, step: int) -> None:
        """Drop the entries after a step. The run may have had more processes before it was resumed."""
        for path in self.folder.glob("audit-*.jsonl"):
            cut_audit(path, step)

    def gather(self, windows: list[Window]) -> list[list[Window]]:
        """The windows of all processes, with nothing but the sentences that begin in them."""
        nothing = np.empty(0)
        starts = [Window(None, None, nothing, nothing, window.sentence_starts, {}) for window in windows]
        return list(gather_object([starts]))

    def write(self, step: int, gathered: list[list[Window]]) -> None:
        for log, windows in zip(self.logs, gathered, strict=False):  # only the main process has logs
            for window in windows:
                log.write(step, window)
