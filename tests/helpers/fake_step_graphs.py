"""A CPU stand-in for the CUDA graphs of whole updates, for the tests of `elmo_hf.pretraining.captured`."""

from elmo_hf.pretraining import captured


class FakeStepCapture:
    """A `graphs.capture` that follows CUDA's rules for work that changes weights: nothing runs while it is
    captured, and a replay reads the tensors of the capture and writes its results to the same memory."""

    def __init__(self):
        self.captures = self.replays = 0
        self.error = None

    def __call__(self, work, inputs, warm_ups):
        assert warm_ups == 0
        self.captures += 1
        if self.error is not None:
            raise self.error
        addresses = [tensor.data_ptr() for tensor in inputs]
        results = None

        def replay():
            nonlocal results
            self.replays += 1
            assert [tensor.data_ptr() for tensor in inputs] == addresses
            new = work(*inputs)
            if results is None:
                results = new
            for result, tensor in zip(results, new, strict=True):
                result.copy_(tensor)
            return results

        return replay


def capture_on_the_cpu(monkeypatch):
    """Make learners capture their updates as on a GPU; return the stand-in."""
    capture = FakeStepCapture()
    monkeypatch.setattr(captured.graphs, "capture", capture)
    monkeypatch.setattr(captured, "run_aside", lambda work, inputs: work(*inputs))
    monkeypatch.setattr(captured, "why_not", captured.why_no_step)
    return capture
