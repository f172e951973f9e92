"""A member of a pg-peers cluster, written from src/guide/wire.md. All but `live` and `main` is pure: no I/O, no clock."""

import argparse, functools, hmac, json, math, os, random, re, secrets, signal, threading, time
from urllib.parse import quote, unquote
import psycopg

INTERVAL = 5.0  # seconds: the shortest time between announcements, and the longest between statements
REMEMBERED = 3_600.0  # seconds for which a member that left is remembered
PART = 7_999 - 200  # bytes of entries in a part of an answer; the rest is for its head and its signature

# ---- Messages. One is a dict: its fields, "tags", "kind", and in an answer "entries", which are such dicts, too.
ANY, TIME, TEXT, ID = range(2**64), range(1, 86_400_001), ".+", {"name", "inc", "seq"}
FIELDS = {  # what each may be, in the order in which they are written
    "name": TEXT,
    "inc": ANY,
    "seq": ANY,
    "new": ANY,
    "due": TIME,
    "age": ANY,
    "back": ANY,
    "check": ANY,
    "beat": TIME,
    "pid": range(1, 2**31),
    "digest": TEXT,
    "inbox": "[0-9a-f]{16}",
    "ask": ANY,
    "away": ANY,
    "try": ANY,
    "why": TEXT,
    "part": ANY,
    "parts": ANY,
}
NEEDED = {
    "hello": ID | {"due"},
    "beat": ID | {"due"},
    "bye": ID,
    "gone": ID,
    "newer": {"name", "inc"},
    "ask": {"inbox"},
    "roster": {"part", "parts"},
}
UNSEEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb\\U00013430-\\U0001345f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e0fff]"
)
encode = functools.partial(quote, safe="".join(set(map(chr, range(0x21, 0x7F))) - set("%;=")))


def milliseconds(since, now):
    return None if since is None else int((now - since) * 1000)


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
    tags = [(decode(key[4:]), decode(value)) for key, value in words if re.match("tag[.].", key)]
    fields = {key: read_value(FIELDS[key], value) or int(key == "inc") for key, value in known}
    if len(fields) < len(known) or len(fields.get("name", "").encode()) > 255 or tags != sorted(dict(tags).items()):
        raise ValueError(f"a field twice, tags that are not sorted, or a long name: {text}")
    return {**fields, "tags": dict(tags)}


def read(payload):
    match = re.fullmatch("pg-peers/1 ([!-~]+) ([ -~]+);", payload)
    try:
        head, *entries = map(read_fields, match[2].split("; ")) if match else [{}]
    except ValueError:
        return None
    is_whole = match and NEEDED.get(match[1], {""}) <= set(head) and all(ID <= set(entry) for entry in entries)
    return {**head, "kind": match[1], "entries": entries} if is_whole else None


def write(fields):
    words = [f"{key}={encode(str(fields[key]))}" for key in FIELDS if fields.get(key) is not None]
    return " ".join(
        words + [f"tag.{encode(key)}={encode(value)}" for key, value in sorted(fields.get("tags", {}).items())]
    )


@functools.lru_cache(100_000)
def fnv1a(data):
    return functools.reduce(lambda value, byte: (value ^ byte) * 0x100000001B3 % 2**64, data, 0xCBF29CE484222325)


def rank(member, question):
    numbers = member["inc"], int(question["inbox"], 16), question.get("ask", 0)
    return fnv1a(member["name"].encode() + b"".join(n.to_bytes(8, "big") for n in numbers))


def digest_of(members):
    lines = [write({key: member[key] for key in ("name", "inc", "tags")}) for member in members]
    return f"{len(lines)}.{sum(fnv1a(line.encode()) for line in lines) % 2**64:016x}"


def sign(payload, ms, secret, channel, to, pid):
    lines = ["pg-peers/1 signature", channel, to, str(pid), f"{payload[:-1]} time={ms}"]
    return f"{lines[-1]} sig={hmac.new(secret.encode(), chr(10).join(lines).encode(), 'sha256').hexdigest()};"


def is_genuine(payload, earliest, latest, *key):
    m = re.fullmatch("(.*) time=([0-9]{1,20}) sig=[0-9a-f]{64};", payload)
    return m and earliest <= int(m[2]) / 1000 <= latest and hmac.compare_digest(payload, sign(m[1] + ";", m[2], *key))


# ---- The roster: each member as last heard, this one included. Who left is kept, so that what comes late changes nothing.
class Roster:
    def __init__(self):
        self.known, self.events = {}, []

    def present(self):
        return [member for member in self.known.values() if "left" not in member]

    def handle(self, m, now, backend=None):
        """Takes an announcement, or a departure, which has no `due`; says whether it is news."""
        name, old, is_here = m["name"], self.known.get(m["name"]), "due" in m
        is_same, was_here = old is not None and old["inc"] == m["inc"], old is not None and "left" not in old
        is_late = old and (m["inc"], m["seq"] + (not is_here)) <= (
            old["inc"],
            old["seq"],
        )  # `gone` has the last `seq` heard
        if is_late or is_same and old.get("why") == "goodbye":
            return False
        kept = "name inc seq due back check beat pid tags" if is_here else "name inc seq why"
        new, heard = {key: m[key] for key in kept.split() if key in m}, now - m.get("age", 0) / 1000
        if is_here and backend:  # a pid counts if that backend says it, and until it speaks for another member
            if new.get("pid") != backend:
                new.pop("pid", None)
            for other in [x for x in self.present() if x.get("pid") == backend]:
                del other["pid"]
        self.known[name] = new | (
            {"heard": heard, "deadline": heard + 3 * m["due"] / 1000} if is_here else {"left": now}
        )
        if was_here and not (is_here and is_same):
            reason = {"goodbye": "goodbye", "silent": "expired"}.get(m.get("why"), "session_gone")
            self.events.append({"event": "leave", "peer": name, "reason": reason if is_same else "replaced"})
        if is_here and not (was_here and is_same and old["tags"] == m["tags"]):
            event = "join" if not is_same else "update" if was_here else "heal"
            self.events.append({"event": event, "peer": name, "tags": m["tags"]})
        return True

    def handle_timeout(self, now):
        for m in self.present():
            if now >= m["deadline"]:
                self.handle({"name": m["name"], "inc": m["inc"], "seq": m["seq"], "why": "silent"}, now)
        self.known = {name: m for name, m in self.known.items() if now < m.get("left", now) + REMEMBERED}


# ---- The member: what it says, and when.
class Member:
    """Pass in what arrives and the time; send what is in `outbox`: an inbox, or "" for the channel, and a payload."""

    def __init__(self, name, tags, inc):
        self.name, self.tags, self.inc, self.seq, self.new, self.pids = name, tags, inc, 0, 1, set()
        self.roster, self.outbox, self.inbox, self.asked, self.question = Roster(), [], secrets.token_hex(8), 0, None
        self.has_answer, self.is_replaced, self.first_hello, self.last_heard, self.announce_at = (
            False,
            False,
            None,
            0.0,
            0.0,
        )
        self.two_trips, self.back, self.digests, self.agreed, self.doubt, self.ask_after = (
            0.0,
            None,
            {},
            0.0,
            None,
            0.0,
        )

    def say(self, kind, fields, to="", rest=""):
        self.outbox.append((to, f"pg-peers/1 {kind} {write(fields)};{rest}"))

    def announce(self, now, kind="beat", more={}):
        self.seq += 1
        n, beat = len(self.roster.present()) + (self.name not in self.roster.known), max(INTERVAL, self.two_trips)
        due = max(
            beat, n * n / 2_000
        )  # not n * n / 200: it never looks at sessions, so it does not know who sees its own
        said = {
            "name": self.name,
            "inc": self.inc,
            "seq": self.seq,
            "due": int(due * 1000),
            "back": self.back,
            "check": 0,
            "beat": int(beat * 1000),
            "pid": self.pid,
            "tags": self.tags,
        }
        self.roster.known[self.name], self.announce_at = {**said, "deadline": math.inf}, now + due * random.uniform(
            0.9, 1.0
        )
        if kind == "beat" and self.has_answer:
            said["digest"] = digest_of(self.roster.present())
        self.say(kind, {**said, **more})

    def announce_within(self, now, seconds=None):
        n = len(self.roster.present())
        self.announce_at = min(self.announce_at, now + random.uniform(0, seconds or max(n * n / 18_000, n / 1_000)))

    def ask(self, now, since=None):
        """Says hello and waits for an answer. `since`: since when it may have missed who left; None for a newcomer."""
        self.question = {
            "name": self.name,
            "inbox": self.inbox,
            "ask": self.asked or None,
            "since": since,
            "away": milliseconds(since, now),
            "tries": 0,
            "got": {},
            "last": now,
            "slowest": 0.0,
            "next_at": now + max(0.2, self.two_trips),
        }
        self.asked += 1
        self.announce(now, "hello", {**self.question, "new": self.new})

    def handle_link_up(self, pid, now):
        self.pid, self.outbox, self.doubt, self.agreed, self.first_hello = pid, [], None, now, self.first_hello or now
        self.pids.add(pid)
        for peer in self.roster.present():
            peer["deadline"] = now + 3 * peer["due"] / 1000  # all have the full time again
        untold = self.question and self.question["since"]  # left open by an outage before this one
        self.ask(now, untold or self.last_heard if self.has_answer else None)

    def handle_message(self, m, pid, now):
        if m["kind"] == "roster":
            self.handle_answer(m, pid, now)
        elif m["kind"] == "ask":
            self.handle_question(m, now)
        elif m["name"] == self.name:
            self.handle_own_name(m, now)
        elif m["kind"] == "bye":
            self.roster.handle({**m, "why": "goodbye"}, now)
        elif m["kind"] != "newer" and self.roster.handle(m, now, pid):
            if m["kind"] == "hello":
                self.handle_question(m, now)
            if m.get("digest") in self.digests:
                self.doubt, self.agreed = None, now
            elif "digest" in m:  # not ours: remember it, when to ask, and whether two in a row say it
                is_second = self.doubt is not None and self.doubt[0] == m["digest"]
                self.doubt = m["digest"], self.doubt[1] if is_second else now + 2 + self.two_trips, is_second

    def handle_own_name(self, m, now):
        inc, is_here = m["inc"], "due" in m
        is_twin = m["kind"] in ("hello", "beat") and inc == self.inc and m.get("pid") not in self.pids
        is_older = is_here and inc > self.inc and now < self.first_hello + 2 and not m.get("new")
        has_left = m["kind"] == "bye" or m.get("why") == "goodbye"
        if is_twin or is_older or has_left and inc >= self.inc or not is_here and inc > self.inc:
            self.inc, self.seq, self.new = inc + random.randint(1, 1_000_000), 0, 1
            self.ask(now)
        elif inc > self.inc:
            self.is_replaced = True
        elif inc < self.inc and is_here or inc == self.inc and not is_here:
            self.announce_within(now, 0.05)
        elif m["kind"] == "hello":
            self.new = None  # it has got out

    def handle_question(self, m, now):
        tries, is_mine = m.get("try", 0), m.get("inbox") == self.inbox
        if "inbox" not in m or tries >= 3 or tries == 0 and not self.has_answer:
            self.announce_within(now)
        elif self.has_answer and not is_mine:
            ranked = sorted(
                (x for x in self.roster.present() if x["name"] != m.get("name")), key=lambda x: rank(x, m)
            )
            if self.name in [x["name"] for x in ranked[tries : tries + 1]]:
                self.answer(m, now)
        if tries >= 3 and (q := self.question) and not (is_mine or q["away"]):
            self.question, self.has_answer = None, True

    def answer(self, m, now):
        parts, away = [""], m.get("away", -1) / 1000
        for x in self.roster.present() + [
            x for x in self.roster.known.values() if "left" in x and now - x["left"] <= away
        ]:
            text = f" {write({**x, 'age': milliseconds(x.get('heard'), now)})};"
            if len(parts[-1]) + len(text) > PART:
                parts.append("")
            parts[-1] += text if len(text) <= PART else ""
        for k, part in enumerate(parts, 1):
            self.say("roster", {"ask": m.get("ask"), "part": k, "parts": len(parts)}, m["inbox"], part)

    def handle_answer(self, m, pid, now):
        q = self.question
        if not q or m.get("ask", 0) != (q["ask"] or 0) or m["part"] not in (1, q["got"].get(pid, 0) + 1):
            return
        for entry in m["entries"]:
            if entry["name"] == self.name:
                self.handle_own_name({**entry, "kind": "entry"}, now)
            else:
                self.roster.handle(entry, now)
        q["got"][pid], q["slowest"], q["last"] = m["part"], max(q["slowest"], now - q["last"]), now
        q["next_at"] = now + max(0.2, self.two_trips, 2 * q["slowest"])
        if m["part"] == m["parts"] and self.question is q:
            self.question, self.has_answer = None, True

    def handle_timeout(self, now, is_up_to_date):
        """Does what is due; says how long until more is."""
        if is_up_to_date:
            self.roster.handle_timeout(now)
        ours, q = digest_of(self.roster.present()), self.question
        if ours not in self.digests:
            self.doubt = None
        self.digests = {**{x: at for x, at in self.digests.items() if now - at <= 3 + self.two_trips}, ours: now}
        if self.doubt and self.doubt[2] and not q and now >= max(self.doubt[1], self.ask_after):
            self.doubt, self.ask_after = None, now + 60
            self.ask(now, self.agreed - 3 - self.two_trips)
        elif q and now >= q["next_at"]:
            q.update(tries=q["tries"] + 1, away=milliseconds(q["since"], now), next_at=now + max(0.2, self.two_trips))
            if q["tries"] > 3:
                self.question, self.has_answer = None, True
            else:
                self.say("ask", {**q, "try": q["tries"]})
        if now >= self.announce_at:
            self.announce(now)
        return max(0, min(0.2, self.announce_at - now, self.question["next_at"] - now if self.question else 0.2))


# ---- The loop.
def live(conn, member, channel, secret, stop):
    """Says and hears, until it is to stop or the connection fails."""
    inbox, pid, spoken, drained, wait = f"pg_peers_{member.inbox}", conn.info.backend_pid, 0.0, time.time(), 0.0
    for name in (channel, inbox):
        conn.execute('LISTEN "{}"'.format(name.replace('"', '""')))
    member.handle_link_up(pid, time.monotonic())
    member.roster.events.append({"event": "online"})
    while True:
        if stop.is_set():
            member.say("bye", {"name": member.name, "inc": member.inc, "seq": member.seq + 1})
        while not member.is_replaced and (
            member.outbox or time.monotonic() >= spoken + max(INTERVAL, member.two_trips)
        ):
            to, payload = member.outbox.pop(0) if member.outbox else ("", "")
            to, began = to and f"pg_peers_{to}", time.monotonic()
            if payload and secret:
                payload = sign(payload, int(time.time() * 1000), secret, channel, to, pid)
            if payload:
                conn.execute("SELECT pg_catalog.pg_notify(%s, %s)", (to or channel, payload))
            else:
                conn.execute("")  # a beat
            spoken = member.last_heard = time.monotonic()
            member.two_trips += (2 * (spoken - began) - member.two_trips) / 8
        while member.roster.events:
            print(json.dumps(member.roster.events.pop(0)), flush=True)
        if stop.is_set() or member.is_replaced:
            return
        heard = list(conn.notifies(timeout=wait, stop_after=1))
        while len(heard) < 1_000 and (more := list(conn.notifies(timeout=0))):
            heard += more
        now, latest = time.monotonic(), time.time() + 60  # they arrived between `drained` and now
        for n in sorted(heard, key=lambda n: bool(re.match("pg-peers/1 gone .* why=silent", n.payload))):
            m, to = read(n.payload), inbox if n.channel == inbox else ""
            if m and secret and not is_genuine(n.payload, drained - 60, latest, secret, channel, to, n.pid):
                m = None
            if m and (m["kind"] == "roster") == bool(to):
                member.handle_message(m, n.pid, now)
        wait = member.handle_timeout(now, len(heard) < 1_000)
        if len(heard) < 1_000:
            drained = time.time()


def main():
    parser = argparse.ArgumentParser(
        description="A member of a pg-peers cluster. Prints a line of JSON for each event."
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--channel", default="cluster")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", type=lambda tag: tag.split("=", 1))
    parser.add_argument("conninfo", nargs="?", default=os.environ.get("DATABASE_URL", ""))
    arguments, stop, pause, opened = parser.parse_args(), threading.Event(), 0.5, []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(
        target=lambda: (all(iter(lambda: os.read(0, 1), b"")), stop.set()), daemon=True
    ).start()  # end of input
    member = Member(arguments.name, dict(arguments.tag), time.time_ns() // 1000)
    while not (stop.is_set() or member.is_replaced):
        try:
            began = time.monotonic()
            with psycopg.connect(arguments.conninfo, autocommit=True, prepare_threshold=None) as conn:
                opened, pause = [*opened[-1:], time.monotonic() - began], 0.5
                member.back = back if (back := int(1_500 * max(opened) + 500)) >= 1_250 else None
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
