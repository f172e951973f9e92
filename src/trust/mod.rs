//! Who is believed: signatures of what is said on the channel, and what the operator is told of refused ones.
//!
//! [`guard`] is what the thread asks; it looks at the wall clock. [`seal`] signs and verifies, and is pure: times are parameters.
//! [`refusals`] counts and logs. All may use [`core::wire`](crate::core::wire), which describes where a signature stands in a
//! payload, and never the link, the roster or the host. Without the cargo feature `auth` there are no secrets, and `absent`
//! stands in for what makes keys of them.

#[cfg(not(feature = "auth"))]
mod absent;
pub(crate) mod guard;
#[cfg(feature = "auth")]
mod hmac;
pub(crate) mod refusals;
pub(crate) mod seal;
