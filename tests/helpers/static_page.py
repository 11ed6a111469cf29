"""The static page's folder, written from elmo-tiny, and a server for it on this machine."""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest

from elmo_hf.errors import ElmoError
from hub_cards import space_static

NODE = shutil.which("node")


def fetch_runtime(folder):
    """The archive of onnxruntime-web from npm, or a skip that says why there is none."""
    try:
        with mock.patch.dict(os.environ, npm_config_fetch_retries="0"):  # without a network, skip at once
            return space_static.fetch_runtime(folder)
    except ElmoError as error:
        pytest.skip(f"the static page is tested with onnxruntime-web from npm: {error}")


def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    space_static.build(folder / "page", runtime=fetch_runtime(folder))
    return folder / "page"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """The address at which a folder is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()
