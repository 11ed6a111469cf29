"""A local page that shows what a model does with words: `elmo-hf demo --model my-elmo`.

    serve(load("my-elmo", "my-tagger"))     # until Ctrl-C; hub_cards/space/app.py does the same on the Hub

The page needs gradio (`pip install "elmo-hf[demo]"`). It sends no request to another machine, and answers
only its own (guard.py): it must be opened at an IP address, at `localhost` or at this machine's name. On a
Space, which is public, any name leads to it. gradio's tunnel (`share`) is not used.
"""

import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from elmo_hf.demo.reading import Reader, load
from elmo_hf.errors import ElmoError

__all__ = ["Reader", "free_port", "load", "serve"]
FIRST_PORT, LAST_PORT = 7860, 7959  # gradio's
MAX_CONNECTIONS = 200


def serve(
    reader: Reader,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    tell: Callable[[str], object] = print,
) -> None:
    """Serve the page until the process is stopped.

    Args:
        reader: The models, as `load` returns them.
        host: The address to listen at; "0.0.0.0" serves other machines, too.
        port: The port; by default the first free one from 7860 on.
        browser: Whether to open the page in a browser.
        tell: Called with a line that says where the page is.

    Raises:
        ElmoError: gradio is not installed, or no port is free.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ElmoError("the demo needs the package gradio; `pip install 'elmo-hf[demo]'`.") from None
    import uvicorn

    from elmo_hf.demo.page import app, build

    port = free_port(host, port)
    config = uvicorn.Config(
        app(build(reader), host), ws="none", log_level="error", limit_concurrency=MAX_CONNECTIONS
    )
    with socket.create_server((host, port)) as listening:  # a visit from now on waits for the server
        server = Thread(target=uvicorn.Server(config).run, args=([listening],), daemon=True)
        server.start()  # not in this thread, where a notebook has an event loop of its own
        tell(f"The demo is at http://{host}:{port}/ until you press Ctrl-C.")
        if browser:
            webbrowser.open(f"http://{host}:{port}/")
        with suppress(KeyboardInterrupt):
            server.join()


def free_port(host: str = "127.0.0.1", port: int | None = None) -> int:
    """The port if it is free, by default the first free one from 7860 on; an ElmoError if there is none."""
    for candidate in [port] if port is not None else range(FIRST_PORT, LAST_PORT + 1):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # accepts a port closed just now
            try:
                trial.bind((host, candidate))
                return candidate
            except OSError:
                continue
    ports = f"port {port} is" if port is not None else f"the ports {FIRST_PORT} to {LAST_PORT} are all"
    raise ElmoError(f"{ports} taken, or not allowed; choose another by --port.")
