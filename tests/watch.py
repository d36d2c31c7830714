"""Reads a credentials file over and over as botocore does, until standard input ends; prints what it saw.

Whenever it looks, the named profiles have credentials that are whole and not at their end, or none; and everything
else in the file is as it was at the start, byte for byte.
"""

import json
import select
import sys
from datetime import datetime, timezone

from botocore.configloader import raw_config_parse

CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
OURS = (*CREDENTIALS, "x_security_token_expires", "x_roleseal_access_key_id")

path, *profiles = sys.argv[1:]


def text():
    with open(path, newline="") as file:
        return file.read()


def rest(profiles):
    """Without the credentials of these profiles."""
    section, kept = None, []
    for line in text().splitlines(True):
        if line.startswith("["):
            section = line[1:].split("]")[0]
        if section not in profiles or not line.startswith(OURS):
            kept.append(line)
    return "".join(kept)


def look(seen):
    now = datetime.now(timezone.utc)
    assert rest(seen) == original, rest(seen)
    parsed = raw_config_parse(path)
    for name, keys in seen.items():
        profile = parsed[name]
        there = [bool(profile.get(key)) for key in OURS]
        assert all(there) or not any(key in profile for key in OURS), (name, there)
        if all(there):
            expires = datetime.fromisoformat(profile["x_security_token_expires"].replace("Z", "+00:00"))
            assert expires > now, (name, expires, now)
        key = profile.get("aws_access_key_id")
        if keys[-1:] != [key]:
            keys.append(key)


original = text()
print("watching", flush=True)
seen, looks = {name: [] for name in profiles}, 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    look(seen)
    looks += 1
print(json.dumps({"looks": looks, "seen": seen}))
