"""Who is there, as one member knows it. Pure: time is a parameter."""

REMEMBERED = 3_600.0  # seconds for which a member that left is remembered

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
