"""Predictions over HTTP; docs/serving.md says how to start the service and what to send."""

import asyncio
import os
from concurrent import futures
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Query
from starlette.requests import ClientDisconnect, Request

import featcache


def make_app(model, max_bytes=10 * 2**20, max_seconds=10.0, max_requests=8):
    """Return the application; `model` is a bundle or the path of one."""
    in_flight = set()

    @asynccontextmanager
    async def lifespan(app):
        app.state.pool = futures.ThreadPoolExecutor(max_requests)
        with featcache.Predictor(model) as app.state.predictor, app.state.pool:
            yield

    app = FastAPI(title="featcache", lifespan=lifespan)

    async def read_body(request):
        body = bytearray()
        async for chunk in request.stream():  # its length may be undeclared, or declared wrongly
            body += chunk
            if len(body) > max_bytes:
                raise HTTPException(413, f"a photo may have {max_bytes:,} bytes")
        return bytes(body)

    async def answer(request, top):
        body = await asyncio.wait_for(read_body(request), max_seconds)
        prediction = app.state.pool.submit(app.state.predictor.predict, body, top)
        return await asyncio.wrap_future(prediction)

    @app.post("/predict")
    async def predict(request: Request, top: int = Query(5, ge=1, le=1000)):
        if len(in_flight) >= max_requests:
            raise HTTPException(503, "too many requests at once", {"Retry-After": "1"})
        task = asyncio.create_task(answer(request, top))
        in_flight.add(task)  # until it is done: a thread cannot be stopped
        # Its error is read, since asyncio would log a late one.
        task.add_done_callback(lambda t: in_flight.discard(t) or t.cancelled() or t.exception())
        try:
            (found,) = await asyncio.wait_for(asyncio.shield(task), max_seconds)
        except (asyncio.TimeoutError, ClientDisconnect):
            raise HTTPException(504, f"no answer within {max_seconds:g} seconds") from None
        if found.reason:
            raise HTTPException(422, f"the photo {found.reason}")
        return {"classes": [{"label": c, "probability": p} for c, p in found.top_classes]}

    return app


app = make_app(os.environ.get("MODEL", "model.featcache"))
