"""A member of a pg-peers cluster, written from src/guide/wire.md.

Only `live` and `main` do I/O and read the clock.
"""

import argparse, functools, hmac, json, math, os, random, re, secrets, signal, threading, time
from urllib.parse import quote, unquote
import psycopg

INTERVAL = 5.0  # seconds: the shortest time between announcements, and the longest between statements
ON_ITS_WAY = 2.0  # seconds before an outage in which what was said may not have arrived
REMEMBERED = 3_600.0  # seconds for which a member that left is remembered
PART = 7_999 - 170  # bytes of entries in a part of an answer; the rest is for its head and its signature

# ---- Messages. One is a dict: its fields, "tags", "kind", and in an answer "entries", which are such dicts, too.
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

# ---- The roster.
def patience(m):
    """For how many seconds a member may be silent."""
    back = min(m.get("back") or 0, 60_000)
    return max(3 * m["due"], m["due"] + back if back > 1_250 else 0) / 1000

class Roster:
    """Each member as last heard, this one included: what it announced, when it was "heard", and the "deadline" until which
    it is there. One that left has "left" (when) and "why" instead, so that what comes late changes nothing."""

    def __init__(self):
        self.known, self.events = {}, []

    def present(self):
        return [member for member in self.known.values() if "left" not in member]

    def handle(self, m, now, backend=None):
        """Takes an announcement, or a departure, which has no `due`; says whether it is news."""
        name, is_here, old = m["name"], "due" in m, self.known.get(m["name"], {"inc": 0, "seq": 0, "left": now})
        was_here, is_same = "left" not in old, old["inc"] == m["inc"]
        next_seq = old["seq"] + int(is_here or m.get("kind") == "bye")  # a `gone` tells the last that was heard
        if (m["inc"], m["seq"]) < (old["inc"], next_seq) or (is_same and old.get("why") == "goodbye"):
            return False
        kept = "inc seq due back check beat pid tags" if is_here else "inc seq why"
        new = {"name": name, **{key: m[key] for key in kept.split() if key in m}}
        if is_here and backend:  # a pid counts if that backend says it, and until it speaks for another member
            if new.get("pid") != backend:
                new.pop("pid", None)
            for other in self.present():
                if other.get("pid") == backend:
                    del other["pid"]
        heard = now if backend else now - m.get("age", 0) / 1000
        ends = {"heard": heard, "deadline": heard + patience(m)} if is_here else {"left": old.get("left", now)}
        self.known[name] = {**new, **ends}
        if was_here and not (is_here and is_same):
            reason = {"goodbye": "goodbye", "silent": "expired"}.get(m.get("why"), "session_gone")
            self.events.append({"event": "leave", "peer": name, "reason": reason if is_same else "replaced"})
        if is_here and not (was_here and is_same and old["tags"] == m["tags"]):
            event = "join" if not is_same else "update" if was_here else "heal"
            self.events.append({"event": event, "peer": name, "tags": m["tags"]})
        return True

    def give_time(self, now):
        for member in self.present():
            member["deadline"] = max(member["deadline"], now + patience(member))

    def handle_timeout(self, now):
        for m in self.present():
            if now >= m["deadline"]:
                self.handle({"name": m["name"], "inc": m["inc"], "seq": m["seq"], "why": "silent"}, now)
        self.known = {name: m for name, m in self.known.items() if now < m.get("left", now) + REMEMBERED}

# ---- The member: what it says, and when.
class Member:
    """Pass in what arrives and the time; send what is in `outbox`: an inbox, or "" for the channel, and a payload."""

    def __init__(self, name, tags, inc):
        self.name, self.tags, self.inc, self.seq = name, tags, inc, 0
        self.roster, self.outbox, self.inbox = Roster(), [], secrets.token_hex(8)
        self.pid, self.pids, self.back, self.two_trips = None, set(), None, 0.0
        self.new, self.starting_until = 1, math.inf  # until two seconds after its first hello got out
        self.is_replaced = False
        self.question, self.asked = None, 0  # the one under way, and how many there were
        self.since, self.last_heard = None, None  # since when it may have missed who left; when it had last heard all
        self.announce_at = 0.0

    def say(self, kind, fields, to="", rest=""):
        self.outbox.append((to, f"pg-peers/1 {kind} {write(fields)};{rest}"))

    def announce(self, now, kind="beat", more={}):
        self.seq += 1
        n, beat = len(self.roster.present()) + (self.name not in self.roster.known), max(INTERVAL, self.two_trips)
        due = max(beat, min(n * n / 2_000, 86_400))  # not n * n / 200: it never asks for sessions, so it is never sure
        said = {"name": self.name, "inc": self.inc, "seq": self.seq, "due": int(due * 1000), "back": self.back,
                "check": 0, "beat": int(beat * 1000), "pid": self.pid, "tags": self.tags}
        is_first = kind == "hello" or said["due"] > self.roster.known.get(self.name, said).get("due", 0)
        self.announce_at = now + due * random.uniform(0 if is_first else 0.95, 1)
        self.roster.known[self.name] = {**said, "deadline": math.inf}
        self.say(kind, {**said, **more})

    def soon(self):
        n = len(self.roster.present())
        return max(n * n / 18_000, n / 1_000)

    def announce_within(self, now, seconds):
        self.announce_at = min(self.announce_at, now + random.uniform(0, seconds))

    def wait(self):
        return max(0.2, self.two_trips)

    def ask(self, now):
        self.question = {"inbox": self.inbox, "ask": self.asked or None, "try": 0, "next_at": now + self.wait(),
                         "got": {}, "last": now, "slowest": 0.0}  # parts by backend, and the longest wait for one
        self.asked += 1
        self.announce(now, "hello", {**self.to_say(now), "try": None, "new": self.new})

    def to_say(self, now):
        away = None if self.since is None else int((now - self.since + ON_ITS_WAY + self.two_trips) * 1000)
        return {"name": self.name, "away": away, **{key: self.question[key] for key in ("inbox", "ask", "try")}}

    def ask_all(self, now):
        """All announce themselves now, which is an answer."""
        self.question.update({"try": 3, "next_at": now + self.wait() + self.soon()})

    def end_question(self):
        self.question, self.since = None, None

    def handle_link_up(self, pid, now):
        self.pid, self.outbox = pid, []
        self.pids.add(pid)
        self.roster.give_time(now)
        if self.since is None:  # else what an earlier outage left open is
            self.since = self.last_heard
        self.ask(now)

    def handle_message(self, m, pid, now):
        if m["kind"] == "roster":
            self.handle_answer(m, pid, now)
        elif m["kind"] == "ask":
            self.handle_question(m, m["try"], now)
        elif m["name"] == self.name:
            self.handle_own_name(m, now)
        elif m["kind"] == "bye":
            self.roster.handle({**m, "why": "goodbye"}, now)
        elif m["kind"] != "newer" and self.roster.handle(m, now, pid) and m["kind"] == "hello":
            self.handle_question(m, 0, now)

    def handle_own_name(self, m, now):
        inc, has_left = m["inc"], m["kind"] == "bye" or m.get("why") == "goodbye"
        if m["kind"] in ("hello", "beat"):
            if inc < self.inc:
                self.announce_within(now, 0.05)
            elif inc == self.inc and m.get("pid") not in self.pids:  # a twin's
                self.step_over(inc, now)
            elif inc == self.inc and m["kind"] == "hello" and self.new:  # it has got out
                self.new, self.starting_until = None, now + 2
            elif inc > self.inc and now < self.starting_until and not m.get("new"):  # an older process, ahead in time
                self.step_over(inc, now)
            elif inc > self.inc:
                self.is_replaced = True
        elif (has_left and inc >= self.inc) or (m["kind"] == "newer" and inc > self.inc):
            self.step_over(inc, now)
        elif m["kind"] == "gone" and inc == self.inc:
            self.announce_within(now, 0.05)

    def step_over(self, inc, now):
        self.inc, self.seq, self.new = min(inc + random.randint(1, 1_000_000), 2**64 - 1), 0, 1
        self.starting_until = math.inf
        self.ask(now)

    def handle_question(self, m, tries, now):
        is_mine = m.get("inbox") == self.inbox
        if "inbox" not in m or tries >= 3 or (tries == 0 and self.question):
            self.announce_within(now, self.soon())
        elif not self.question and not is_mine:
            others = [member for member in self.roster.present() if member["name"] != m.get("name")]
            ranked = sorted(others, key=lambda member: rank(member, m))
            if tries < len(ranked) and ranked[tries]["name"] == self.name:
                self.answer(m, now)
        if tries >= 3 and self.question and not is_mine:
            away = self.to_say(now)["away"]
            if away is None or away <= m.get("away", -math.inf) + 2_000:
                self.ask_all(now)

    def answer(self, m, now):
        away, parts = m.get("away", -1) / 1000, [""]
        left = [member for member in self.roster.known.values() if now - member.get("left", -math.inf) <= away]
        for member in self.roster.present() + left:
            age = int((now - member["heard"]) * 1000) if "heard" in member else None
            text = f" {write({**member, 'age': age})};"
            if len(parts[-1]) + len(text) > PART:
                parts.append("")
            parts[-1] += text
        for number, part in enumerate(parts, 1):
            self.say("roster", {"ask": m.get("ask"), "part": number, "parts": len(parts)}, m["inbox"], part)

    def handle_answer(self, m, pid, now):
        q = self.question
        if not q or m.get("ask", 0) != (q["ask"] or 0) or m["part"] not in (1, q["got"].get(pid, 0) + 1):
            return
        for entry in m["entries"]:
            if entry["name"] != self.name:
                self.roster.handle(entry, now)
        q["got"][pid], q["slowest"], q["last"] = m["part"], max(q["slowest"], now - q["last"]), now
        q["next_at"] = now + max(self.wait(), 2 * q["slowest"])
        if m["part"] == m["parts"]:
            self.end_question()

    def handle_timeout(self, now, is_up_to_date):
        """Does what is due; says how long until more is."""
        if is_up_to_date:
            self.roster.handle_timeout(now)
        if (q := self.question) and now >= q["next_at"]:
            if q["try"] == 3:
                self.end_question()
            else:
                q.update({"try": q["try"] + 1, "next_at": now + self.wait()})
                self.say("ask", self.to_say(now))
                if q["try"] == 3:
                    self.ask_all(now)
        if now >= self.announce_at:
            self.announce(now)
        return max(0, min(0.2, self.announce_at - now, self.question["next_at"] - now if self.question else 0.2))

# ---- The loop.
def live(conn, member, channel, secret, stop):
    """Says and hears, until it is to stop or the connection fails."""
    inbox, drained, wait, began = f"pg_peers_{member.inbox}", time.time(), 0.0, time.monotonic()
    pid = conn.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()[0]  # a pooler's client is told another number
    spoken = time.monotonic()
    member.two_trips = max(member.two_trips, 2 * (spoken - began))
    for name in (channel, inbox):
        conn.execute('LISTEN "{}"'.format(name.replace('"', '""')))
    member.handle_link_up(pid, time.monotonic())
    member.roster.events.append({"event": "online"})
    while True:
        if stop.is_set():
            member.say("bye", {"name": member.name, "inc": member.inc, "seq": member.seq + 1})
        beat_at = spoken + max(INTERVAL, member.two_trips)
        while not member.is_replaced and (member.outbox or time.monotonic() >= beat_at):
            to, payload = member.outbox.pop(0) if member.outbox else ("", "")
            to, began = f"pg_peers_{to}" if to else "", time.monotonic()
            if payload and secret:
                payload = sign(payload, int(time.time() * 1000), secret, channel, to, pid)
            if payload:
                conn.execute("SELECT pg_catalog.pg_notify(%s, %s)", (to or channel, payload))
            else:
                conn.execute("")  # a beat
            spoken, beat_at = time.monotonic(), math.inf
            member.two_trips += (2 * (spoken - began) - member.two_trips) / 8
            if spoken - began >= INTERVAL:  # the server stood still, so nobody was heard
                member.roster.give_time(spoken)
        while member.roster.events:
            print(json.dumps(member.roster.events.pop(0)), flush=True)
        if stop.is_set() or member.is_replaced:
            return
        heard = list(conn.notifies(timeout=wait, stop_after=1))
        while len(heard) < 1_000 and (more := list(conn.notifies(timeout=0))):
            heard += more
        now, latest = time.monotonic(), time.time() + 60  # they arrived between `drained` and now
        for n in heard:
            m, to = read(n.payload), inbox if n.channel == inbox else ""
            if m and secret and not is_genuine(n.payload, drained - 60, latest, secret, channel, to, n.pid):
                m = None
            if m and (m["kind"] == "roster") == bool(to):
                member.handle_message(m, n.pid, now)
        if len(heard) < 1_000:
            drained, member.last_heard = time.time(), began  # by then all had arrived
        wait = member.handle_timeout(now, len(heard) < 1_000)

def main():
    parser = argparse.ArgumentParser(description="A member of a pg-peers cluster; prints a line of JSON for each event.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--channel", default="cluster")
    tag = lambda text: text.partition("=")[::2]
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", type=tag)
    parser.add_argument("conninfo", nargs="?", default=os.environ.get("DATABASE_URL", ""))
    arguments, stop, pause, opened = parser.parse_args(), threading.Event(), 0.5, []
    member = Member(arguments.name, dict(arguments.tag), time.time_ns() // 1000)
    entry = write({"name": member.name, "inc": 2**64 - 1, "seq": 2**64 - 1, "due": 1, "tags": member.tags})
    if len(entry) + 150 > PART or not read(f"pg-peers/1 beat {entry};"):
        parser.error("the name has 1 to 255 bytes, a key has one, and all is visible text that fits in a payload")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def wait_for_end_of_input():
        while os.read(0, 4_096):
            pass
        stop.set()

    threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    while not (stop.is_set() or member.is_replaced):
        try:
            began = time.monotonic()
            with psycopg.connect(arguments.conninfo, autocommit=True, prepare_threshold=None) as conn:
                opened, pause = [*opened[-1:], time.monotonic() - began], 0.5
                back = int(1_500 * max(opened) + 500)
                member.back = back if back >= 1_250 else None
                live(conn, member, arguments.channel, os.environ.get("PG_PEERS_SECRET"), stop)
        except psycopg.Error as error:
            if pause == 0.5:
                print(json.dumps({"event": "offline", "error": str(error).strip()}), flush=True)
            stop.wait(random.uniform(0, pause))
            pause = min(2.0, 2 * pause)
    if member.is_replaced:
        print(json.dumps({"event": "offline", "error": "a newer process has this name"}), flush=True)

if __name__ == "__main__":
    main()
