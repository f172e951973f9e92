"""A member of a pg-peers cluster, written from src/guide/wire.md.

Only `live` and `main` do I/O and read the clock.
"""

import argparse, json, math, os, random, secrets, signal, threading, time
import psycopg
from messages import is_genuine, rank, read, sign, write
from roster import Roster

INTERVAL = 5.0  # seconds: the shortest time between announcements, and the longest between statements
ON_ITS_WAY = 2.0  # seconds before an outage in which what was said may not have arrived
PART = 7_999 - 170  # bytes of entries in a part of an answer; the rest is for its head and its signature

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
