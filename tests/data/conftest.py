"""Real files, files that a test writes, and a server on this machine."""

import hashlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynops.data import Cifar10, Dataset


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real CIFAR-10."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("DYNOPS_DATA", beside))
    if not (root / "cifar-10-batches-py").is_dir():
        pytest.fail(f"{root} lacks cifar-10-batches-py: set DYNOPS_DATA to the folder that holds it.")
    return root


@pytest.fixture(scope="session")
def cifar10(data_root: Path) -> Dataset:
    return Cifar10().load(0, root=data_root)


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with `tiny`: 3 classes, each of one tint, 12 images to train and 5 to test, JPEG and PNG of odd sizes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for part, number in (("train", 12), ("val", 5)):
        for tint, name in enumerate(("ant", "bee", "cow")):
            folder = root / "tiny" / part / name
            folder.mkdir(parents=True)
            for each in range(number):
                pixels = random.integers(0, 60, (*random.integers(17, 60, 2), 3), dtype=np.uint8)
                pixels[..., tint] += 150
                Image.fromarray(pixels).save(folder / f"{each}.{('JPEG', 'png', 'jpg')[each % 3]}")
    return root


@pytest.fixture(scope="session")
def old_pickle() -> Callable[[Any], bytes]:
    """Pickle a value with numpy's old module names, as CIFAR's files have them."""

    def write(value: Any) -> bytes:
        return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")

    return write


@pytest.fixture(scope="session")
def md5() -> Callable[[bytes], str]:
    return lambda content: hashlib.md5(content).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a server on this machine, and the folder that it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served))) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/", served
        made.shutdown()
        thread.join()
