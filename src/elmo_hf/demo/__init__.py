"""A local page that shows what a model does with words: `elmo-hf demo --model my-elmo`.

    serve(load("my-elmo", "my-tagger"))     # until Ctrl-C; hub_cards/space/app.py does the same on the Hub

The page needs gradio (`pip install "elmo-hf[demo]"`). It sends no request to another machine.
"""

import socket
from collections.abc import Callable

from elmo_hf.demo.reading import Reader, load
from elmo_hf.errors import ElmoError

__all__ = ["Reader", "free_port", "load", "serve"]
FIRST_PORT, LAST_PORT = 7860, 7959  # gradio's


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
        host: The address to listen at.
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
    from elmo_hf.demo.page import LAUNCH_OPTIONS, build

    port = free_port(host, port)
    page = build(reader)
    page.launch(
        server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, **LAUNCH_OPTIONS
    )
    tell(f"The demo is at http://{host}:{port}/ until you press Ctrl-C.")
    page.block_thread()


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
