"""The example of a service, over real HTTP."""

from __future__ import annotations

import gc
import importlib.util
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import featcache
from conftest import photo
from heads import make_head

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

FILE = Path(__file__).parents[2] / "examples" / "serve.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("serve_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> featcache.Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    paths = [str(photo(folder / f"{i}.png", i)) for i in range(8)]
    features = featcache.extract("pocket", paths, cache_dir=folder / "cache", labels=list("ab") * 4)
    return featcache.make_bundle(features, make_head("logistic").fit(features.X, features.labels))


@contextmanager
def served(app: Any) -> Iterator[Any]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(example: Any, bundle: featcache.Bundle) -> Iterator[Any]:
    app = example.make_app(bundle, max_bytes=5000, max_seconds=2.0, max_requests=2)
    with served(app) as client:
        client.app = app
        yield client


def test_the_example_is_short() -> None:
    assert len(FILE.read_text("utf-8").splitlines()) < 60


def test_a_photo_gets_its_classes(client: Any, bundle: featcache.Bundle, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 3)
    answer = client.post("/predict?top=1", content=path.read_bytes())
    assert answer.status_code == 200
    (found,) = answer.json()["classes"]
    (expected,) = featcache.Predictor(bundle).predict(path, top=1)[0].top_classes
    assert (found["label"], found["probability"]) == pytest.approx(expected)


def test_what_is_no_photo_or_too_large_is_refused(client: Any) -> None:
    answer = client.post("/predict", content=b"no photo")
    assert answer.status_code == 422
    assert "the photo is not an image" in answer.json()["detail"]
    assert client.post("/predict", content=b"").status_code == 422
    assert client.post("/predict?top=0", content=b"").status_code == 422
    assert client.post("/predict", content=b"x" * 5001).status_code == 413
    undeclared = client.post("/predict", content=iter([b"x" * 3000] * 2))
    assert undeclared.status_code == 413
    assert client.get("/predict").status_code == 405


def test_a_slow_sender_and_a_slow_photo_end_in_time(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(8):
            yield b"x"
            time.sleep(0.5)

    started = time.perf_counter()
    assert client.post("/predict", content=slowly()).status_code == 504
    gate = threading.Event()
    predict = client.app.state.predictor.predict

    def wait(body: bytes, top: int) -> Any:
        gate.wait(30)
        return predict(body, top)

    monkeypatch.setattr(client.app.state.predictor, "predict", wait)
    content = photo(tmp_path / "a.png", 3).read_bytes()
    try:
        with ThreadPoolExecutor(2) as pool:
            late = pool.map(lambda _: client.post("/predict", content=content), range(2))
            assert [answer.status_code for answer in late] == [504, 504]
        # Both photos still occupy a thread.
        busy = client.post("/predict", content=content)
        assert busy.status_code == 503
        assert busy.headers["Retry-After"] == "1"
    finally:
        gate.set()
    assert time.perf_counter() - started < 30
    monkeypatch.undo()
    deadline = time.monotonic() + 30
    while (answer := client.post("/predict", content=content)).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.status_code == 200
    gc.collect()
    assert "never retrieved" not in caplog.text
