//! What members do with each other, on servers that work or restart. `tests/faults` has those that do not.
//!
//! One program, since most of these tests wait most of the time.

#[path = "../support/mod.rs"]
mod support;

mod delivery;
mod encoding;
mod growing;
mod guest;
mod hangs;
mod link;
mod logging;
mod membership;
mod pooler;
mod privileges;
mod python;
mod quoting;
mod recipes;
mod rules;

#[test]
fn participant_process() {
    support::be_a_participant();
}
