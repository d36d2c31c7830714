#!/usr/bin/python3
"""Asks roleseal-agent for signatures as this user: requests.py ROLE PROFILE ANCHOR IDENTITY COUNT|FILE

Each request has a connection of its own. Says how many had the most frequent outcome and how many another one; what could
not be reached counts as `lost`, and three of those are the end. With the name of a file, goes on as long as that exists.
"""

import collections
import json
import os
import socket
import sys
import urllib.parse

role, profile, anchor, identity, count = sys.argv[1:6]
query = urllib.parse.urlencode(
    sorted({"profileArn": profile, "roleArn": role, "trustAnchorArn": anchor}.items()), quote_via=urllib.parse.quote, safe=""
)
call = {
    "method": "org.roleseal.Agent.SignCreateSession",
    "parameters": {
        "identity": identity,
        "region": "eu-central-1",
        "host": "rolesanywhere.eu-central-1.amazonaws.com",
        "query": query,
        "contentType": "application/json",
        "body": '{"durationSeconds":3600}',
    },
}


def ask():
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(40)
            agent.connect("/run/roleseal/agent.sock")
            agent.sendall(json.dumps(call).encode() + b"\0")
            answer = b""
            while not answer.endswith(b"\0"):
                part = agent.recv(65536)
                if not part:
                    return "lost"
                answer += part
    except OSError:
        return "lost"
    answer = json.loads(answer[:-1])
    return answer["error"].rpartition(".")[2] if "error" in answer else "signed"


outcomes = collections.Counter()
while outcomes["lost"] < 3 and (outcomes.total() < int(count) if count.isdigit() else os.path.exists(count)):
    outcomes[ask()] += 1
(most, times), *others = (+outcomes).most_common()
print(f"{times} {most}, {sum(number for _, number in others)} other", *others)
