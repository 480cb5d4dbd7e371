//! AES-GCM on TLS records where they lie (RFC 8446 §5.2 and §5.3).
//!
//! Invariant: a key seals no two records with the same sequence number, since [`Key`] alone counts them and a failure to
//! seal ends the session. Deliberately absent: suites other than the two AES-GCM ones (spec data-plane 7), whose
//! sessions stay with rustls altogether.

use rustls::ConnectionTrafficSecrets;

#[cfg(feature = "aws-lc")]
use aws_lc_rs::aead;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
use ring::aead;

/// Octets of the authentication tag behind every record.
pub(super) const TAG: usize = aead::MAX_TAG_LEN;

/// What a record's header looks like to the AEAD.
pub(super) type Header = [u8; 5];

/// The key of one direction, with the number of the next record.
pub(super) struct Key {
    key: aead::LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    seq: u64,
}

/// The record cannot be opened, or no record can be sealed any more.
#[derive(Debug)]
pub(super) struct Refused;

impl Key {
    /// A key whose next record is number `seq`; none if the secrets belong to a suite that is not ours.
    pub(super) fn new(seq: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            _ => return None,
        };
        let key = aead::UnboundKey::new(algorithm, key.as_ref()).ok()?;
        Some(Self { key: aead::LessSafeKey::new(key), iv: iv.as_ref().try_into().ok()?, seq })
    }

    /// The number of the next record, which is how many this key has dealt with.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Encrypts `plain` in place and returns the tag that belongs behind it.
    pub(super) fn seal(&mut self, header: Header, plain: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let nonce = self.next_nonce()?;
        let tag = self.key.seal_in_place_separate_tag(nonce, aead::Aad::from(header), plain).map_err(|_| Refused)?;
        tag.as_ref().try_into().map_err(|_| Refused)
    }

    /// Checks and decrypts `sealed`, which ends with its tag, in place; returns the plaintext's length.
    pub(super) fn open(&mut self, header: Header, sealed: &mut [u8]) -> Result<usize, Refused> {
        let nonce = self.next_nonce()?;
        let plain = self.key.open_in_place(nonce, aead::Aad::from(header), sealed).map_err(|_| Refused)?;
        Ok(plain.len())
    }

    /// The initialisation vector combined with the record's number (RFC 8446 §5.3).
    fn next_nonce(&mut self) -> Result<aead::Nonce, Refused> {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= count;
        }
        self.seq = self.seq.checked_add(1).ok_or(Refused)?;
        Ok(aead::Nonce::assume_unique_for_key(nonce))
    }
}
