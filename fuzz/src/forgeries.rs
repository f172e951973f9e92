//! Signatures: a member that holds secrets, among others that hold one, and strangers who hold none of its.
//!
//! It has a twin that hears only what a holder signed. Whatever else is said, the two never differ.
//!
//! An input is text, a step a line, with operands as those of the core ([`crate::steps`]). The first line says which of
//! the [`LISTS`] of secrets the member has. Then there are:
//!
//! | step | what happens |
//! |---|---|
//! | `m` secret clock, then kind name incarnation seq due pid inbox tag sender | such a message is signed, and heard |
//! | `a` secret clock sender, then part parts, then five each: name incarnation seq due age | such an answer is |
//! | `S` secret clock sender payload | this payload is, with a `;` at its end |
//! | `x` which change | what was signed so long before is heard with one byte changed so, each byte in turn |
//! | `c` which at count text | what was signed so long before is heard with this text in place of so many bytes |
//! | `e` which sender where | what was signed so long before is heard from another backend, or elsewhere |
//! | `P` sender payload | a stranger says this |
//! | `A` sender payload | a stranger says this to the inbox |
//! | `q` | all that had arrived has been heard |
//! | `w` hundredths of a second, `W` seconds, `M` minutes | that time passes |

use std::time::{Duration, Instant};

use crate::core::roster::Roster;
use crate::core::roster::checks::{check_bounds, peers};
use crate::core::wire::{self, Inbox, Pid};
use crate::simulator::host::described;
use crate::simulator::setup::Setup;
use crate::status::Status;
use crate::steps::{Args, INBOX, OWN_NAME, answer, message};
use crate::trust::refusals::{Refusals, Refused};
use crate::trust::seal::{Keys, Refusal, Seal, Secret, TOLERANCE};

const CHANNEL: &str = "my_app";

/// No member has the last one.
const SECRETS: [&[u8]; 4] = [
    b"sixteen or more bytes",
    b"another sixteen bytes",
    b"sixteen or more bytes.",
    b"that of a stranger",
];

const LISTS: [&[usize]; 4] = [&[0], &[0, 1], &[1, 0], &[2, 0, 1]];

/// What clocks are ahead by, in milliseconds; the last three are too far off.
const AHEAD: [i64; 8] = [0, 1_000, -1_000, 60_000, -60_000, 60_001, -60_001, -200_000];

const OWN_PID: Pid = Pid::new(100).expect("not zero");

/// When it begins, since the Unix epoch.
const BEGIN: Duration = Duration::from_millis(1_795_443_190_123);

/// Steps beyond these take time, and show nothing new.
const MAX_STEPS: usize = 100;

/// Whatever is said, no panic, and nothing is heard but what a holder of a secret signed.
pub fn seal(input: &[u8]) {
    let mut lines = input.split(|&b| b == b'\n');
    let setup = lines.next().unwrap_or_default();
    let mut scene = Scene::new(Args(setup).pick(0, &LISTS));
    for line in lines.take(MAX_STEPS) {
        if let Some((&step, operands)) = line.split_first() {
            scene.step(step, operands);
            scene.settle();
        }
    }
}

struct Scene {
    now: Instant,
    time_of_day: Duration,
    /// Which ones the member has.
    secrets: &'static [usize],
    member: Member,
    twin: Member,
    /// All that any of its secrets signed.
    signed: Vec<Signed>,
    /// All that had arrived by then has been heard.
    all_heard: Duration,
}

/// A payload that is what it should be when this backend says it there, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
struct Signed {
    sender: Pid,
    inbox: Option<String>,
    payload: String,
}

impl Scene {
    fn new(secrets: &'static [usize]) -> Self {
        let now = Instant::now();
        let mut scene = Self {
            now,
            time_of_day: BEGIN,
            secrets,
            member: Member::new(secrets, now),
            twin: Member::new(secrets, now),
            signed: Vec::new(),
            all_heard: Duration::ZERO,
        };
        scene.hear_all();
        scene.settle();
        scene
    }

    fn step(&mut self, step: u8, operands: &[u8]) {
        let args = Args(operands);
        let rest = |from| operands.get(from..).unwrap_or_default();
        let text = |from| String::from_utf8_lossy(rest(from));
        match step {
            b'm' => {
                let fields = Args(rest(2));
                self.hear_holder(&args, pid(&fields, 8), None, message(&fields));
            }
            b'a' => {
                let payload = answer(&Args(rest(3)));
                self.hear_holder(&args, pid(&args, 2), Some(own_inbox()), payload);
            }
            b'S' => self.hear_holder(&args, pid(&args, 2), None, format!("{};", text(3))),
            b'x' => self.hear_each_byte_changed(&args),
            b'c' => self.hear_changed(&args, rest(3)),
            b'e' => self.hear_elsewhere(&args),
            b'P' => self.hear_stranger(stranger(&args, 0), None, &text(1)),
            b'A' => self.hear_stranger(stranger(&args, 0), Some(&own_inbox()), &text(1)),
            b'q' => self.hear_all(),
            b'w' => self.pass(Duration::from_millis(10 * args.number(0))),
            b'W' => self.pass(Duration::from_secs(args.number(0))),
            b'M' => self.pass(Duration::from_secs(60 * args.number(0))),
            _ => {}
        }
    }

    /// The holder of this secret, which need not be one of ours, signs this by another clock, and says it.
    fn hear_holder(
        &mut self,
        args: &Args<'_>,
        sender: Pid,
        inbox: Option<String>,
        payload: String,
    ) {
        if !payload.ends_with(';') {
            // A bare name cannot be signed.
            return self.hear_stranger(sender, None, &payload);
        }
        let secret = args.pick(0, &[0, 1, 2, 3]);
        let ahead = args.pick(1, &AHEAD);
        let offset = Duration::from_millis(ahead.unsigned_abs());
        let clock = match ahead {
            ..0 => self.time_of_day - offset,
            _ => self.time_of_day + offset,
        };
        let payload = seal_of(&[secret]).sign(clock, sender, inbox.as_deref(), payload);
        let signed = Signed {
            sender,
            inbox,
            payload,
        };
        check_who_opens(&signed, secret, clock);
        let verdict = self.member.hear(self.now, self.time_of_day, &signed);
        assert_eq!(self.twin.hear(self.now, self.time_of_day, &signed), verdict);
        if !self.secrets.contains(&secret) {
            assert_eq!(verdict, Err(Refusal::Forged));
            return;
        }
        match verdict {
            Ok(()) => {
                assert!(ahead <= 60_000 && clock + TOLERANCE >= self.all_heard);
                // What comes after it was sent after it.
                self.all_heard = self.all_heard.max(clock - TOLERANCE);
            }
            Err(Refusal::Ahead(by)) => assert!(by == offset && ahead > 60_000),
            Err(Refusal::Old(by)) => assert!(TOLERANCE < by && by <= offset && ahead < -60_000),
            Err(other) => panic!("{other:?}"),
        }
        self.signed.push(signed);
    }

    fn hear_each_byte_changed(&mut self, args: &Args<'_>) {
        let Some(signed) = self.signed_before(args) else {
            return;
        };
        let change = args.get(1).max(1);
        for at in 0..signed.payload.len() {
            let mut bytes = signed.payload.clone().into_bytes();
            bytes[at] ^= change;
            self.hear_forged(&signed, bytes);
        }
    }

    fn hear_changed(&mut self, args: &Args<'_>, text: &[u8]) {
        let Some(signed) = self.signed_before(args) else {
            return;
        };
        let mut bytes = signed.payload.clone().into_bytes();
        let from = usize::from(args.get(1)).min(bytes.len());
        let to = (from + usize::from(args.get(2))).min(bytes.len());
        bytes.splice(from..to, text.iter().copied());
        self.hear_forged(&signed, bytes);
    }

    fn hear_elsewhere(&mut self, args: &Args<'_>) {
        let Some(signed) = self.signed_before(args) else {
            return;
        };
        let sender = match args.get(1) {
            0 => signed.sender,
            _ => stranger(args, 1),
        };
        let inbox = match args.get(2) % 4 {
            0 => signed.inbox,
            1 => None,
            2 => Some(own_inbox()),
            _ => Some(Inbox::new(args.number(2)).channel()),
        };
        let said = Signed {
            sender,
            inbox,
            ..signed
        };
        self.hear_unless_signed(&said);
    }

    /// As if Postgres said that it comes from who signed the original.
    fn hear_forged(&mut self, original: &Signed, payload: Vec<u8>) {
        // What is no UTF-8 does not get here.
        if let Ok(payload) = String::from_utf8(payload) {
            let said = Signed {
                payload,
                ..original.clone()
            };
            self.hear_unless_signed(&said);
        }
    }

    fn hear_stranger(&mut self, sender: Pid, inbox: Option<&str>, payload: &str) {
        self.hear_unless_signed(&Signed {
            sender,
            inbox: inbox.map(str::to_owned),
            payload: payload.to_owned(),
        });
    }

    /// Only the member, and not its twin, hears what must not count.
    fn hear_unless_signed(&mut self, said: &Signed) {
        if self.signed.contains(said) {
            return;
        }
        let verdict = self.member.hear(self.now, self.time_of_day, said);
        assert!(
            matches!(verdict, Err(Refusal::Unsigned | Refusal::Forged)),
            "{:?} by {} to {:?}",
            said.payload,
            said.sender,
            said.inbox
        );
    }

    fn signed_before(&self, args: &Args<'_>) -> Option<Signed> {
        let at = self
            .signed
            .len()
            .checked_sub(1 + usize::from(args.get(0)))?;
        Some(self.signed[at].clone())
    }

    fn hear_all(&mut self) {
        self.all_heard = self.time_of_day;
        for member in [&mut self.member, &mut self.twin] {
            member.seal.all_heard(self.time_of_day);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.time_of_day += time;
        for member in [&mut self.member, &mut self.twin] {
            assert!(
                !member.roster.handle_timeout(self.now, self.now),
                "the link was proven"
            );
        }
    }

    /// The two say the same, and know the same.
    fn settle(&mut self) {
        let said = self.member.speak(self.now);
        assert_eq!(parts(&said), parts(&self.twin.speak(self.now)));
        for (inbox, payload) in said {
            let seal = &self.member.seal;
            let payload = seal.sign(self.time_of_day, OWN_PID, inbox.as_deref(), payload);
            assert!(payload.len() <= wire::MAX_PAYLOAD);
            let signed = Signed {
                sender: OWN_PID,
                inbox,
                payload,
            };
            check_who_opens(&signed, self.secrets[0], self.time_of_day);
            self.signed.push(signed);
        }
        let [member, twin] = [&mut self.member.roster, &mut self.twin.roster];
        while let Some(change) = member.poll_change() {
            assert_eq!(twin.poll_change(), Some(change));
        }
        assert_eq!(twin.poll_change(), None);
        assert_eq!(described(peers(member)), described(peers(twin)));
        assert_eq!(member.poll_timeout(), twin.poll_timeout());
        check_bounds(member);
    }
}

/// What the thread makes of it.
struct Member {
    seal: Seal,
    refusals: Refusals,
    status: Status,
    roster: Roster,
}

impl Member {
    fn new(secrets: &[usize], now: Instant) -> Self {
        let inbox = Inbox::new(INBOX);
        let setup = Setup {
            heartbeat: Duration::from_secs(5),
            session_check: false,
            max_peers: 5,
            ..Setup::new(OWN_NAME, 5)
        };
        let mut roster = setup.roster(0, inbox);
        roster.handle_link_up(now, Some(OWN_PID));
        Self {
            seal: seal_of(secrets),
            refusals: Refusals::default(),
            status: Status::default(),
            roster,
        }
    }

    fn hear(&mut self, now: Instant, time_of_day: Duration, said: &Signed) -> Result<(), Refusal> {
        let Signed {
            sender,
            ref inbox,
            ref payload,
        } = *said;
        let verdict = self
            .seal
            .verify(time_of_day, sender, inbox.as_deref(), payload);
        if let Err(why) = verdict {
            let refused = Refused {
                channel: CHANNEL,
                sender,
                payload,
                why,
            };
            self.refusals.note(now, &refused, &mut self.status);
        } else if inbox.is_none() {
            if let Some(message) = wire::decode(payload) {
                self.roster.handle_message(now, sender, &message);
            }
        } else if let Some(part) = wire::decode_roster(payload) {
            self.roster.handle_sync_part(now, sender, &part);
        }
        verdict
    }

    /// Everything that is due, and the inbox where it goes to one.
    fn speak(&mut self, now: Instant) -> Vec<(Option<String>, String)> {
        let mut said = Vec::new();
        while let Some(message) = self.roster.poll_announcement(now) {
            said.push((None, wire::encode(&message)));
        }
        while let Some(piece) = self.roster.poll_answer(now) {
            let inbox = piece.inbox.channel();
            let payloads = piece.payloads.into_iter();
            said.extend(payloads.map(|p| (Some(inbox.clone()), p)));
        }
        said
    }
}

/// What is said, sorted: an answer names everybody in no order, so that it may also be divided differently.
fn parts(said: &[(Option<String>, String)]) -> Vec<(Option<&str>, &str)> {
    let parts = said.iter().flat_map(|(inbox, payload)| {
        let head = usize::from(inbox.is_some());
        let parts = payload.split_terminator(';').skip(head);
        parts.map(|part| (inbox.as_deref(), part))
    });
    let mut parts: Vec<_> = parts.collect();
    parts.sort_unstable();
    parts
}

/// It opens with every list of secrets that has this one, where and by the backend by which it is said, and else not at all.
fn check_who_opens(signed: &Signed, secret: usize, clock: Duration) {
    let Signed {
        sender,
        inbox,
        payload,
    } = signed;
    let verdict = |mut seal: Seal, sender, inbox| seal.verify(clock, sender, inbox, payload);
    let inbox = inbox.as_deref();
    for list in LISTS {
        let opens = match list.contains(&secret) {
            true => Ok(()),
            false => Err(Refusal::Forged),
        };
        assert_eq!(verdict(seal_of(list), *sender, inbox), opens);
    }
    let elsewhere = match inbox {
        Some(_) => None,
        None => Some("pg_peers_0123456789abcdef"),
    };
    for wrong in [
        verdict(seal_on("my_app2", &[secret]), *sender, inbox),
        verdict(seal_of(&[secret]), Pid::MAX, inbox),
        verdict(seal_of(&[secret]), *sender, elsewhere),
    ] {
        assert_eq!(wrong, Err(Refusal::Forged));
    }
}

fn seal_of(secrets: &[usize]) -> Seal {
    seal_on(CHANNEL, secrets)
}

fn seal_on(channel: &str, secrets: &[usize]) -> Seal {
    let secrets: Vec<_> = secrets.iter().map(|&n| Secret::new(SECRETS[n])).collect();
    let keys = Keys::parse(&secrets).expect("secrets that are long enough");
    Seal::new(channel.to_owned(), keys)
}

fn own_inbox() -> String {
    Inbox::new(INBOX).channel()
}

/// The backend of a member.
fn pid(args: &Args<'_>, at: usize) -> Pid {
    Pid::new(args.pid(at)).expect("not zero")
}

/// A backend that no member has.
fn stranger(args: &Args<'_>, at: usize) -> Pid {
    Pid::new(1_000 + args.pid(at)).expect("not zero")
}
