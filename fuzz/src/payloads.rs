//! The decoder of payloads, of both kinds.

use std::borrow::Cow;

use crate::core::wire::{self, Announce, Body, Message, WireTags};
use crate::peer;

/// Whatever the bytes are, no panic; and what they say, if anything, can be said again and then means the same.
pub fn decode(bytes: &[u8]) {
    let payload = String::from_utf8_lossy(bytes);
    if let Some(message) = wire::decode(&payload) {
        let nameless = matches!(message.body, Body::Query { .. }) && message.name.is_empty();
        assert!(nameless || is_fit(&message.name), "{message:?}");
        let said = encode(&message);
        let heard = wire::decode(&said).expect("what was decoded");
        assert_same(&heard, &message);
        assert_eq!(encode(&heard), said);
    }
    if let Some(part) = wire::decode_roster(&payload) {
        assert!(wire::is_answer(&payload));
        assert!((1..=part.parts).contains(&part.part));
        let (question, sent) = (part.question, part.members);
        let tags: Vec<String> = sent.iter().map(tags_of).collect();
        let again = sent.iter().zip(&tags);
        let again = again.map(|(message, tags)| with_tags(message, tags));
        let mut heard = sent.iter();
        for payload in wire::encode_roster(question, again) {
            assert!(payload.len() <= wire::MAX_PAYLOAD);
            let part = wire::decode_roster(&payload).expect("what was decoded");
            for message in &part.members {
                assert!(is_fit(&message.name), "{message:?}");
                // Those that have grown too long for a payload are left out: where a `=` stood that should not.
                let same = heard.find(|sent| sent.name == message.name && is_same(message, sent));
                assert!(same.is_some(), "{message:?} was not said");
            }
        }
        if payload.len() < wire::MAX_PAYLOAD / 4 {
            assert!(heard.next().is_none(), "somebody was left out");
        }
    }
}

/// As by who heard the message and passes it on: the fields that it did not know are gone.
fn encode(message: &Message<'_>) -> String {
    wire::encode(&with_tags(message, &tags_of(message)))
}

fn tags_of(message: &Message<'_>) -> String {
    match &message.body {
        Body::Announce(announce) => {
            let tags = announce.tags.to_tags();
            for (key, value) in tags.iter() {
                assert!(is_fit(key), "{key:?}");
                assert_eq!(peer::check_text(value, wire::MAX_PAYLOAD), Ok(()));
            }
            assert!(announce.tags.same_as(&tags));
            wire::encode_tags(&tags)
        }
        _ => String::new(),
    }
}

fn with_tags<'a>(message: &'a Message<'_>, tags: &'a str) -> Message<'a> {
    let body = match message.body.clone() {
        Body::Announce(announce) => Body::Announce(Announce {
            tags: WireTags::encoded(tags),
            ..announce
        }),
        Body::Bye { incarnation, seq } => Body::Bye { incarnation, seq },
        Body::Newer { incarnation } => Body::Newer { incarnation },
        Body::Gone {
            incarnation,
            seq,
            why,
        } => Body::Gone {
            incarnation,
            seq,
            why,
        },
        Body::Query { question, attempt } => Body::Query { question, attempt },
        Body::Bare => Body::Bare,
    };
    let name = Cow::Borrowed(&*message.name);
    Message { name, body }
}

fn assert_same(heard: &Message<'_>, sent: &Message<'_>) {
    assert!(
        heard.name == sent.name && is_same(heard, sent),
        "{heard:?} was {sent:?}"
    );
}

/// Whether they say the same, however they say it.
fn is_same(heard: &Message<'_>, sent: &Message<'_>) -> bool {
    match (&heard.body, &sent.body) {
        (Body::Announce(heard), Body::Announce(sent)) => {
            let tags = WireTags::default();
            let [but_tags, same] = [heard, sent].map(|a| Announce { tags, ..a.clone() });
            but_tags == same && heard.tags.same_as(&sent.tags.to_tags())
        }
        (heard, sent) => heard == sent,
    }
}

/// A word that people can be shown.
fn is_fit(word: &str) -> bool {
    peer::check_word(word, wire::MAX_PAYLOAD).is_ok() && !word.chars().any(char::is_control)
}
