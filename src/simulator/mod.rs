//! The core without a network, in virtual time: for the tests of the core, the fuzz target `core` and the example `simulate`.
//!
//! It may use everything that is pure: [`core`](crate::core), [`host::outbox`](crate::host::outbox),
//! [`trust::seal`](crate::trust::seal). The library itself never uses it.
//!
//! [`host`] is a host program that checks the events it is told. [`participant`] is a roster with such a host. [`process`] is a
//! participant on a channel, and [`net`] the channel with all its processes. [`setup`] says how a process takes part.

pub(crate) mod host;
pub(crate) mod net;
pub(crate) mod participant;
pub(crate) mod process;
pub(crate) mod setup;
