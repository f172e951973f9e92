//! The membership core: who is there, who has left and why, what this participant says and when.
//!
//! Pure state. Time is a parameter: no clock, no thread, no I/O, no log. It knows nothing of the link, and nothing of
//! signatures, which [`trust`](crate::trust) puts around what is said here. It may use the nouns that the host sees
//! ([`peer`](crate::peer), [`event::Reason`](crate::event::Reason)), [`jitter`](crate::jitter) and
//! [`round_trip`](crate::round_trip), nothing else of the crate.
//!
//! [`roster`] is the door: [`Roster`](roster::Roster) takes what happened and gives what to do next. [`wire`] reads and writes
//! payloads; [`presence`] is what this member says of itself, [`roster_sync`] how it learns who is there, [`digest`] and [`doubt`]
//! how it notices that others know other members, [`session_check`] when it asks Postgres which sessions are gone, [`stillness`]
//! which stand still, and [`beats`] how it proves that its own does not.

pub(crate) mod beats;
pub(crate) mod digest;
pub(crate) mod doubt;
pub(crate) mod presence;
pub(crate) mod roster;
pub(crate) mod roster_sync;
pub(crate) mod session_check;
pub(crate) mod stillness;
pub(crate) mod wire;
