//! HMAC-SHA-256 (RFC 2104, FIPS 180-4), of the crates that `postgres` brings for its passwords.

use std::fmt::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::seal::{MIN_SECRET, Signature};

/// Bytes that only the members of a cluster know. Never shown.
#[derive(Clone)]
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret that has been made ready: it is hashed once, not with every payload. As secret as that.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

impl Key {
    /// `None` for a secret that is too short.
    pub(crate) fn parse(Secret(bytes): &Secret) -> Option<Self> {
        let long_enough = bytes.len() >= MIN_SECRET;
        long_enough
            .then(|| Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length")))
    }

    pub(crate) fn sign(&self, text: &impl fmt::Display) -> Signature {
        self.mac(text).finalize().into_bytes().into()
    }

    /// Takes the same time wherever the first difference is.
    pub(crate) fn verify(&self, text: &impl fmt::Display, signature: &Signature) -> bool {
        self.mac(text).verify_slice(signature).is_ok()
    }

    fn mac(&self, text: &impl fmt::Display) -> Hmac<Sha256> {
        let mut reader = Reader(self.0.clone());
        write!(reader, "{text}").expect("it takes what is written to it");
        reader.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Takes a text piece by piece, so that nobody has to put it together.
struct Reader(Hmac<Sha256>);

impl Write for Reader {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn keys_of(secrets: &[&str]) -> super::seal::Keys {
    let secrets = secrets.iter().map(|secret| Secret::new(secret.as_bytes()));
    super::seal::Keys::parse(&secrets.collect::<Vec<_>>()).expect("secrets that are long enough")
}
