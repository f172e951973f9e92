"""The text of messages, and their signatures. Pure.

A message is a dict: its fields, "tags", "kind", and in an answer "entries", which are such dicts, too.
"""

import functools, hmac, re
from urllib.parse import quote, unquote

ANY, TIME, TEXT = range(2**64), range(1, 86_400_001), ".+"
FIELDS = {  # what each may be, in the order in which they are written
    "name": TEXT, "inc": ANY, "seq": ANY, "new": ANY, "due": TIME, "age": ANY, "back": ANY, "check": ANY, "beat": TIME,
    "pid": range(1, 2**31), "inbox": "[0-9a-f]{16}", "ask": ANY, "away": ANY, "try": ANY, "part": ANY, "parts": ANY,
    "why": TEXT,
}
NEEDED = {"hello": "name inc seq due", "beat": "name inc seq due", "bye": "name inc seq", "gone": "name inc seq",
          "newer": "name inc", "ask": "inbox try", "roster": "part parts"}
UNSEEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\U00013430-\\U0001345f"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]")
encode = functools.partial(quote, safe="".join(set(map(chr, range(0x21, 0x7F))) - set("%;=")))

def decode(text):
    decoded, is_cut = unquote(text, errors="strict"), re.search("%(?![0-9A-Fa-f]{2})", text)
    if is_cut or UNSEEN.search(decoded):
        raise ValueError(f"not a text: {text}")
    return decoded

def read_value(allowed, text):
    if isinstance(allowed, str) and re.fullmatch(allowed, text):
        return decode(text)
    if isinstance(allowed, range) and text.isdigit() and int(text) in allowed:
        return int(text)
    raise ValueError(f"not a value of this field: {text}")

def read_fields(text):
    words = [word.split("=", 1) for word in text.split(" ")]
    known = [(key, value) for key, value in words if key in FIELDS]  # a ValueError if there was no "="
    tags = [(decode(key[4:]), decode(value)) for key, value in words if key.startswith("tag.")]
    fields = {key: read_value(FIELDS[key], value) for key, value in known}
    if len(fields) < len(known) or tags != sorted(dict(tags).items()):
        raise ValueError(f"a field twice, or tags that are not sorted: {text}")
    if ";" in text or "" in dict(tags) or len(fields.get("name", "").encode()) > 255:
        raise ValueError(f"not what a field may be: {text}")
    if "inc" in fields:
        fields["inc"] = max(1, fields["inc"])
    return {**fields, "tags": dict(tags)}

def read(payload):
    match = re.fullmatch("pg-peers/1 ([!-~]+) ([ -~]+);", payload)
    if not match or match[1] not in NEEDED:
        return None
    try:
        head, *entries = map(read_fields, match[2].split("; "))
    except ValueError:
        return None
    has = lambda fields, needed: all(key in fields for key in needed.split())
    if not has(head, NEEDED[match[1]]) or not all(has(entry, "name inc seq") for entry in entries):
        return None
    if entries and match[1] != "roster":
        return None
    if match[1] not in ("hello", "beat"):
        head.pop("due", None)  # what has one is an announcement
    return {**head, "kind": match[1], "entries": entries}

def write(fields):
    words = [f"{key}={encode(str(fields[key]))}" for key in FIELDS if fields.get(key) is not None]
    tags = sorted(fields.get("tags", {}).items())
    return " ".join(words + [f"tag.{encode(key)}={encode(value)}" for key, value in tags])

def rank(member, question):
    numbers = member["inc"], int(question["inbox"], 16), question.get("ask", 0)
    value = 0xCBF29CE484222325
    for byte in member["name"].encode() + b"".join(number.to_bytes(8, "big") for number in numbers):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value

def sign(payload, ms, secret, channel, to, pid):
    text = f"{payload[:-1]} time={ms}"
    lines = "\n".join(["pg-peers/1 signature", channel, to, str(pid), text])
    return f"{text} sig={hmac.new(secret.encode(), lines.encode(), 'sha256').hexdigest()};"

def is_genuine(payload, earliest, latest, *key):
    m = re.fullmatch("(.*) time=([0-9]{1,20}) sig=[0-9a-f]{64};", payload)
    is_timely = m and earliest <= int(m[2]) / 1000 <= latest
    return is_timely and hmac.compare_digest(payload, sign(m[1] + ";", m[2], *key))
