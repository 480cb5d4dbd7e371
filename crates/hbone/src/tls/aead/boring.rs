//! AES-GCM of BoringSSL.

use boring::aead::{AeadCtx, Algorithm as Aead};

use super::{Algorithm, Header, Nonce, Refused, TAG};

/// A key.
pub(super) struct Gcm(AeadCtx);

impl Gcm {
    /// None if the key's length is not the algorithm's.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let aead = match algorithm {
            Algorithm::Aes128 => Aead::aes_128_gcm(),
            Algorithm::Aes256 => Aead::aes_256_gcm(),
        };
        if key.len() != aead.key_length() {
            return None;
        }
        Some(Self(AeadCtx::new(&aead, key, TAG).ok()?))
    }

    pub(super) fn seal(&mut self, nonce: Nonce, header: Header, plain: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let mut tag = [0; TAG];
        self.0.seal_in_place_mut(&nonce, plain, &mut tag, &header).map_err(|_| Refused)?;
        Ok(tag)
    }

    pub(super) fn open(&mut self, nonce: Nonce, header: Header, sealed: &mut [u8]) -> Result<usize, Refused> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        self.0.open_in_place_mut(&nonce, text, tag, &header).map_err(|_| Refused)?;
        Ok(text.len())
    }
}
