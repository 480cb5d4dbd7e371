//! AES-GCM of OpenSSL: one context, which keeps the key's schedule from record to record.

use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;

use super::{Algorithm, Header, Nonce, Refused, TAG};

/// A key.
pub(super) struct Gcm(CipherCtx);

impl Gcm {
    /// None if the key's length is not the algorithm's, or the library refuses.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let (cipher, length) = match algorithm {
            Algorithm::Aes128 => (Cipher::aes_128_gcm(), 16),
            Algorithm::Aes256 => (Cipher::aes_256_gcm(), 32),
        };
        if key.len() != length {
            return None;
        }
        let mut context = CipherCtx::new().ok()?;
        // GCM runs the block cipher forwards in both directions, so that one schedule serves both.
        context.encrypt_init(Some(cipher), Some(key), None).ok()?;
        Some(Self(context))
    }

    pub(super) fn seal(&mut self, nonce: Nonce, header: Header, plain: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let mut seal = || -> Result<[u8; TAG], ErrorStack> {
            self.0.encrypt_init(None, None, Some(&nonce))?;
            self.0.cipher_update(&header, None)?;
            self.0.cipher_update_inplace(plain, plain.len())?;
            self.0.cipher_final(&mut [])?;
            let mut tag = [0; TAG];
            self.0.tag(&mut tag)?;
            Ok(tag)
        };
        seal().map_err(|_| Refused)
    }

    pub(super) fn open(&mut self, nonce: Nonce, header: Header, sealed: &mut [u8]) -> Result<usize, Refused> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(Refused)?;
        let mut open = || -> Result<usize, ErrorStack> {
            self.0.decrypt_init(None, None, Some(&nonce))?;
            self.0.cipher_update(&header, None)?;
            self.0.set_tag(tag)?;
            self.0.cipher_update_inplace(text, text.len())?;
            self.0.cipher_final(&mut [])?;
            Ok(text.len())
        };
        open().map_err(|_| Refused)
    }
}
