"""A small Flask app for `gunicorn -k gevent`, as it may stand behind the gateway.

It has what makes proxies interesting: a slow answer, a streamed one, an upload, and a view of the
headers that arrived.
"""

import hashlib
import time

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def index():
    """Says who answered."""
    return jsonify(message="hello from flask", worker="gevent")


@app.get("/slow")
def slow():
    """Sleeps `?seconds=` (default 0.5); under gevent that is a greenlet's sleep, so others go on."""
    seconds = min(float(request.args.get("seconds", "0.5")), 60.0)
    time.sleep(seconds)
    return jsonify(slept=seconds)


@app.get("/stream")
def stream():
    """Sends `?lines=` lines (default 5), one every `?pause=` seconds, as they are made."""
    lines = min(int(request.args.get("lines", "5")), 100_000)
    pause = min(float(request.args.get("pause", "0.1")), 10.0)

    def made():
        for number in range(lines):
            yield f"line {number}\n"
            time.sleep(pause)

    return Response(made(), mimetype="text/plain")


@app.post("/upload")
def upload():
    """Reads a body of any length in pieces and says how long it was, and its SHA-256."""
    digest, length = hashlib.sha256(), 0
    while piece := request.stream.read(65536):
        digest.update(piece)
        length += len(piece)
    return jsonify(length=length, sha256=digest.hexdigest())


@app.get("/headers")
def headers():
    """Shows the headers that arrived, in order."""
    return jsonify(headers=list(request.headers.items()), remote=request.remote_addr)


@app.get("/status/<int:code>")
def status(code):
    """Answers with any status."""
    return jsonify(status=code), code
