//! AES-GCM of AWS-LC, validated or not, and of ring: their interfaces are the same.

#[cfg(not(feature = "ring"))]
use aws_lc_rs::aead;
#[cfg(feature = "ring")]
use ring::aead;

use super::{Algorithm, Header, Nonce, Refused, TAG};

/// A key.
pub(super) struct Gcm(aead::LessSafeKey);

impl Gcm {
    /// None if the key's length is not the algorithm's.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match algorithm {
            Algorithm::Aes128 => &aead::AES_128_GCM,
            Algorithm::Aes256 => &aead::AES_256_GCM,
        };
        Some(Self(aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?)))
    }

    pub(super) fn seal(&mut self, nonce: Nonce, header: Header, plain: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let (nonce, header) = (aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(header));
        let tag = self.0.seal_in_place_separate_tag(nonce, header, plain).map_err(|_| Refused)?;
        tag.as_ref().try_into().map_err(|_| Refused)
    }

    pub(super) fn open(&mut self, nonce: Nonce, header: Header, sealed: &mut [u8]) -> Result<usize, Refused> {
        let (nonce, header) = (aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(header));
        let plain = self.0.open_in_place(nonce, header, sealed).map_err(|_| Refused)?;
        Ok(plain.len())
    }
}
