//! What tests, fuzz targets and the example `simulate` share: the core without a network, in virtual time.

pub(crate) mod host;
