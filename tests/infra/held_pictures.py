"""Pictures over HTTP, the last of which nobody gets before somebody lets go. In: how many are free. Out: a server."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int) -> bytes:
    """A JPEG of noise."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


class HeldPictures:
    """Serves `/K.jpg`; of K from `free` on only after `let_go`, and then all."""

    def __init__(self, free: int) -> None:
        self.served = 0
        self.let_go = threading.Event()
        held = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.strip("/").partition(".")[0])
                if number >= free:
                    held.let_go.wait(150)
                body = picture(number)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                held.served += 1

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sources(self, count: int) -> list[dict[str, Any]]:
        """The first so many, as rows of a manifest."""
        url = f"http://127.0.0.1:{self.server.server_port}"
        common = {"modality": "image", "version": "1", "mtime": 1}
        return [{"uri": f"{url}/{k}.jpg", "size": len(picture(k)), **common} for k in range(count)]


def write_manifest(path: Path, sources: list[dict[str, Any]]) -> str:
    """Sources, a line each."""
    path.write_text("\n".join(map(json.dumps, sources)))
    return str(path)
