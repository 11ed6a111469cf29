"""A local page to look at what a model does with words: `elmo-hf demo --model my-elmo`.

    serve(load("my-elmo", "my-tagger"))     # until Ctrl-C; hub_cards/space/app.py does the same on the Hub

The page needs gradio (`pip install "elmo-hf[demo]"`). It asks for nothing outside of this machine.
"""

import socket
from collections.abc import Callable

from elmo_hf.demo.reading import Reader, load

__all__ = ["Reader", "free_port", "load", "serve"]
FIRST_PORT, LAST_PORT = 7860, 7959  # gradio's


def serve(
    reader: Reader,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    tell: Callable[[str], object] = print,
) -> None:
    """Serves the page until the process is stopped; `tell` hears its address.

    port: the first free one from 7860 if left out.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the demo needs the package gradio; `pip install 'elmo-hf[demo]'`.") from None
    from elmo_hf.demo.page import LOOK, build

    port = free_port(host, port)
    page = build(reader)
    page.launch(server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, **LOOK)
    tell(f"The demo is at http://{host}:{port}/ until you press Ctrl-C.")
    page.block_thread()


def free_port(host: str = "127.0.0.1", port: int | None = None) -> int:
    """The port if it is free, or the first that is."""
    for candidate in [port] if port is not None else range(FIRST_PORT, LAST_PORT + 1):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was used just now is free
            try:
                trial.bind((host, candidate))
                return candidate
            except OSError:
                continue
    wanted = f"port {port} is" if port is not None else f"the ports {FIRST_PORT} to {LAST_PORT} are all"
    raise ValueError(f"{wanted} taken, or not allowed; choose another by --port.")
