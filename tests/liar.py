#!/usr/bin/python3
"""A token program that proves its key to the agent, and signs everything after that wrongly."""

import json
import subprocess
import sys
import socket

link = socket.socket(fileno=0)


def receive():
    length = int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big")
    return json.loads(link.recv(length, socket.MSG_WAITALL)) if length else sys.exit()


def send(message):
    text = json.dumps(message).encode()
    link.sendall(len(text).to_bytes(4, "big") + text)


def sign(text):
    command = ["openssl", "dgst", "-sha256", "-sign", "liar.key"]
    return subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


send({"version": open("liar.version").read()})
receive()
open("liar.opened", "w").close()
send({"Opened": {"Ok": [{"Ok": {"algorithm": "EcdsaSha256", "certificate": None, "warnings": [], "logs_in": False}}]}})
for said in ["the truth", *["a lie"] * 100]:
    request = receive()["Sign"]
    text = request["text"] if said == "the truth" else said
    send({"Signed": {"id": request["id"], "result": {"Ok": sign(text).hex()}}})
