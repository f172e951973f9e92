//! What is written is read again, and what is not ours is refused.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn announce<'a>(name: &'a str, tags: &'a str) -> Message<'a> {
    Message {
        name: name.into(),
        body: Body::Announce(Announce {
            hello: true,
            newborn: true,
            incarnation: Incarnation::new(7),
            seq: 1,
            due: Duration::from_secs(5),
            pid: Pid::new(4711),
            question: Some(Question::at(Inbox(0xbeef))),
            age: None,
            back: LEAST_BACK,
            checks: true,
            beat: None,
            digest: None,
            tags: WireTags::encoded(tags),
        }),
    }
}

fn tags_of(message: &Message<'_>) -> Tags {
    match &message.body {
        Body::Announce(announce) => announce.tags.to_tags(),
        other => panic!("no announcement: {other:?}"),
    }
}

#[test]
fn the_time_to_be_back_has_bounds_and_a_default() {
    let back = |field: &str| {
        let text = format!("pg-peers/1 beat name=n inc=7 seq=1 due=5000{field};");
        let message = decode(&text)?;
        match message.body {
            Body::Announce(announce) => Some(announce.back),
            _ => None,
        }
    };
    assert_eq!(back(""), Some(LEAST_BACK));
    assert_eq!(back(" back=0"), Some(LEAST_BACK));
    assert_eq!(back(" back=9000"), Some(Duration::from_secs(9)));
    assert_eq!(back(" back=18446744073709551615"), Some(MOST_BACK));
    assert_eq!(back(" back=x"), None);
    let usual = encode(&announce("n", ""));
    assert!(!usual.contains("back"), "{usual}");
}

#[test]
fn an_announcement_reads_as_documented() {
    let tags = encode_tags(&[("zone", "eu 1"), ("a", "50%=½;")].into_iter().collect());
    assert_eq!(
        encode(&announce("w@h", &tags)),
        "pg-peers/1 hello name=w@h inc=7 seq=1 new=1 due=5000 pid=4711 inbox=000000000000beef \
         tag.a=50%25%3D%C2%BD%3B tag.zone=eu%201;"
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let message = decode(
        "pg-peers/1 beat x=1 name=n new.y= inc=7 seq=1 due=5000 tag.a=1 z=% tag.b=2 sig=ab;",
    );
    let message = message.expect("a beat");
    assert_eq!(message.name, "n");
    assert_eq!(
        tags_of(&message),
        [("a", "1"), ("b", "2")].into_iter().collect()
    );
}

#[test]
fn payloads_that_are_not_ours_are_refused() {
    let whole = "pg-peers/1 beat name=n inc=7 seq=1 due=5000;";
    assert!(decode(whole).is_some());
    for payload in [
        "",
        " ",
        "hello",
        "pg-peers/2 beat name=n inc=7 seq=1 due=5000;",
        "pg-peers/11 beat name=n inc=7 seq=1 due=5000;",
        "pg-peers/1 later name=n inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000",
        "pg-peers/1 beat name=n inc=7 seq=1;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=0;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=86400001;",
        "pg-peers/1 beat name=n inc=+7 seq=1 due=5000;",
        "pg-peers/1 beat name=n inc=18446744073709551616 seq=1 due=5000;",
        "pg-peers/1 beat name=n inc= seq=1 due=5000;",
        "pg-peers/1 beat name= inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=n name=m inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=%0A inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=%FF inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=%4 inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=%+4 inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.=1;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.b=1 tag.a=1;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.a=1 tag.a=2;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.a=%1B;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000;;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 pid=0;",
        "pg-peers/1 beat name=n inc=7 seq=1 due=5000 pid=2147483648;",
        "pg-peers/1 hello name=n inc=7 seq=1 due=5000 inbox=beef;",
        "pg-peers/1 hello name=n inc=7 seq=1 due=5000 inbox=000000000000BEEF;",
        "pg-peers/1 gone name=n inc=7;",
        "pg-peers/1 ask name=n try=1;",
        "pg-peers/1 ask inbox=000000000000beef;",
        "pg-peers/1 roster part=1 parts=1; name=n inc=7 seq=1 due=5000;",
        "pg-peers/1 beat  name=n inc=7 seq=1 due=5000;",
        "pg-peers/1 beat name=½ inc=7 seq=1 due=5000;",
    ] {
        assert_eq!(decode(payload), None, "{payload}");
    }
    assert_eq!(decode(&"x@".repeat(3_999)), None);
}

#[test]
fn rule_8_a_bare_node_name_is_a_heartbeat_without_incarnation() {
    let message = decode("realtime@10.0.0.1").expect("a node name");
    assert_eq!(message.name, "realtime@10.0.0.1");
    assert_eq!(message.body, Body::Bare);
}

fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|s| {
        s.chars()
            .filter(|&c| peer::check_text(&c.to_string(), 9).is_ok())
            .collect()
    })
}

fn name() -> impl Strategy<Value = String> {
    text().prop_filter("a name is not empty", |s| {
        peer::check_word(s, MAX_HEARD_NAME).is_ok()
    })
}

proptest! {
    // Hundreds of messages each.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_tells_everybody_however_many_payloads_it_takes(
        names in prop::collection::vec(name(), 1..300), tag in text(), number: u64
    ) {
        let tags = encode_tags(&[("key", tag)].into_iter().collect());
        let sent: Vec<Message<'_>> = names.iter().map(|name| {
            let mut message = announce(name, &tags);
            if let Body::Announce(announce) = &mut message.body {
                (announce.hello, announce.newborn, announce.question) = (false, false, None);
                announce.age = Some(Duration::from_secs(3));
            }
            message
        }).collect();
        let payloads = encode_roster(number, sent.clone());
        let mut heard = Vec::new();
        for (payload, part) in payloads.iter().zip(1..) {
            prop_assert!(payload.len() <= MAX_PAYLOAD);
            let read = decode_roster(payload).expect("a part");
            prop_assert_eq!((read.part, read.parts), (part, payloads.len() as u64));
            prop_assert_eq!(read.question, number);
            heard.extend(read.members);
            prop_assert_eq!(decode_roster(&payload[..payload.len() - 1]), None);
        }
        prop_assert_eq!(heard.len(), sent.len());
        for (heard, sent) in heard.iter().zip(&sent) {
            prop_assert_eq!(&heard.name, &sent.name);
            prop_assert_eq!(tags_of(heard), tags_of(sent));
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(
        name in name(), hello: bool, inc: u64, seq: u64, due in 1..=86_400_000u64,
        tags in prop::collection::vec((name(), text()), 0..4), kind in 0..5, pid in 1..=i32::MAX,
        inbox: u64, back in 1_250..=60_000u64, checks: bool, newborn: bool,
        away in prop::option::of(0..=3_600_000u64), beat in prop::option::of(1..=86_400_000u64)
    ) {
        let tags: Tags = tags.into_iter().collect();
        let encoded = encode_tags(&tags);
        let incarnation = Incarnation::new(inc);
        let away = away.map(Duration::from_millis);
        let question = Question { inbox: Inbox(inbox), number: inc, away };
        let body = match kind {
            0 => Body::Announce(Announce {
                hello, newborn: hello && newborn, incarnation, seq, due: Duration::from_millis(due), pid: Pid::new(pid),
                question: Some(question).filter(|_| hello), age: None, back: Duration::from_millis(back),
                checks, beat: beat.map(Duration::from_millis), digest: Some(Digest { members: pid as u32, sum: inbox }).filter(|_| !hello), tags: WireTags::encoded(&encoded),
            }),
            1 => Body::Bye { incarnation, seq },
            2 => Body::Gone { incarnation, seq, why: [Reason::Goodbye, Reason::Expired, Reason::SessionGone][pid as usize % 3] },
            3 => Body::Query { question, attempt: seq },
            _ => Body::Newer { incarnation },
        };
        let sent = Message { name: name.as_str().into(), body };
        let payload = encode(&sent);
        prop_assert!(payload.bytes().all(|b| matches!(b, b' '..=b'~')));
        let heard = decode(&payload).expect("our own message");
        prop_assert_eq!(&heard.name, &sent.name);
        match (&heard.body, &sent.body) {
            (Body::Announce(a), Body::Announce(b)) => {
                prop_assert!(a.tags.same_as(&tags));
                prop_assert_eq!(a.tags.to_tags(), tags);
                prop_assert_eq!((a.hello, a.incarnation, a.seq, a.due), (b.hello, b.incarnation, b.seq, b.due));
                prop_assert_eq!((a.pid, a.question, a.back, (a.checks, a.beat), a.newborn, a.digest), (b.pid, b.question, b.back, (b.checks, b.beat), b.newborn, b.digest));
                prop_assert!(payload.len() <= longest_announcement(&name, &encoded));
            }
            (a, b) => prop_assert_eq!(a, b),
        }
        for end in 0..payload.len() {
            prop_assert_eq!(decode(&payload[..end]), None, "cut at {}", end);
        }
    }

    #[test]
    fn decode_never_panics(payload: String, cut in 0..100usize, bytes: Vec<u8>) {
        let _ = decode(&payload);
        let _ = decode_roster(&format!("pg-peers/1 roster part=1 parts=1; name=n{payload};"));
        let fields = format!("pg-peers/1 beat name=n inc=1 seq=1 due=1 {payload};");
        let _ = decode(&fields);
        let mut mangled = fields.into_bytes();
        let cut = cut.min(mangled.len());
        mangled.splice(cut..cut, bytes);
        if let Some(message) = decode(&String::from_utf8_lossy(&mangled)) {
            prop_assert!(peer::check_word(&message.name, MAX_HEARD_NAME).is_ok());
        }
    }
}

#[test]
fn a_digest_is_as_documented() {
    // By another implementation of the hash.
    let sum = fingerprint(
        "worker-1@10.0.0.1:7000",
        Incarnation::new(1_795_443_184_000_000),
        "tag.zone=eu-1",
    );
    assert_eq!(format!("{sum:016x}"), "ebcd355fc7de5016");
    let documented = include_str!("../../guide/wire.md");
    let beat = documented.lines().find(|line| line.contains(" beat "));
    let beat = decode(beat.expect("an example")).expect("a beat");
    let Body::Announce(announce) = beat.body else {
        panic!("{beat:?}");
    };
    assert_eq!(announce.digest, Some(Digest { members: 1, sum }));
}

/// The payloads that the guide shows, those that it shows whole.
fn shown() -> impl Iterator<Item = &'static str> {
    let guide = include_str!("../../guide/wire.md").lines();
    let payloads = guide.filter_map(|line| line.get(line.find("pg-peers/1 ")?..));
    payloads.filter(|it| it.ends_with(';') && !it.contains("...") && !it.contains('`'))
}

#[test]
fn what_the_guide_shows_is_what_members_write() {
    for payload in shown() {
        if is_answer(payload) {
            decode_roster(payload).expect(payload);
            continue;
        }
        let mut message = decode(payload).expect(payload);
        let tags;
        if let Body::Announce(announce) = &mut message.body {
            // What is read refers to the payload as a whole.
            tags = encode_tags(&announce.tags.to_tags());
            announce.tags = WireTags::encoded(&tags);
        }
        let end = payload.find(" time=").unwrap_or(payload.len() - 1);
        let unsigned = &payload[..end];
        assert_eq!(encode(&message), format!("{unsigned};"));
    }
}

#[test]
fn the_digests_in_the_conversation_are_those_of_its_members() {
    let mut members = BTreeMap::new();
    let mut digests = 0;
    for payload in shown() {
        let part = decode_roster(payload).map(|part| part.members);
        for message in part.unwrap_or_default().into_iter().chain(decode(payload)) {
            let name = message.name.to_string();
            match message.body {
                Body::Announce(announce) => {
                    let tags = encode_tags(&announce.tags.to_tags());
                    let member = fingerprint(&name, announce.incarnation, &tags);
                    members.insert(name, member);
                    let known = members
                        .values()
                        .fold(Digest::default(), |all, &it| all.with(it));
                    if let Some(digest) = announce.digest {
                        assert_eq!(digest, known, "{payload}");
                        digests += 1;
                    }
                }
                Body::Bye { .. } | Body::Gone { .. } => drop(members.remove(&name)),
                Body::Bare | Body::Newer { .. } | Body::Query { .. } => {}
            }
        }
    }
    assert!(digests > 5, "{digests}");
}
