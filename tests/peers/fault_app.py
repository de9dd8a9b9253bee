"""A Flask app to be restarted under load: every answer says which worker gave it."""

import os

import gevent
from flask import Flask

app = Flask(__name__)


@app.get("/get/<int:number>")
def get(number):
    gevent.sleep(0.005)
    return {"number": number, "worker": os.getpid()}


@app.get("/wait/<int:number>")
def wait(number):
    """Long enough that a burst needs a connection for each of its requests."""
    gevent.sleep(0.1)
    return {"number": number, "worker": os.getpid()}


@app.get("/healthz")
def healthz():
    return "ok\n"
