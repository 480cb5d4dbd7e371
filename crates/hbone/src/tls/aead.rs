//! AES-GCM on TLS records where they lie (RFC 8446 §5.2 and §5.3).
//!
//! Invariants: a key seals no two records with the same sequence number, since [`Key`] alone counts them and a failure
//! to seal ends the session; and the cipher is the library's that the build has chosen, so that a build on a validated
//! library encrypts nothing with another. Deliberately absent: suites other than the two AES-GCM ones (spec data-plane
//! 7), whose sessions stay with rustls altogether.

// Test tools may turn on the default library beside the one that a build is about, which therefore comes last.
#[cfg(all(feature = "boring", not(feature = "openssl")))]
mod boring;
#[cfg(feature = "openssl")]
mod openssl;
#[cfg(not(any(feature = "openssl", feature = "boring")))]
mod ring_like;

#[cfg(all(feature = "boring", not(feature = "openssl")))]
use self::boring as library;
#[cfg(feature = "openssl")]
use self::openssl as library;
#[cfg(not(any(feature = "openssl", feature = "boring")))]
use self::ring_like as library;
use library::Gcm;
use rustls::ConnectionTrafficSecrets;

#[cfg(not(any(
    feature = "aws-lc",
    feature = "aws-lc-fips",
    feature = "ring",
    feature = "openssl",
    feature = "boring"
)))]
compile_error!("choose whose AES-GCM seals records: one of the features aws-lc, aws-lc-fips, ring, openssl and boring");

/// Octets of the authentication tag behind every record.
pub(super) const TAG: usize = 16;
/// Octets of the nonce of a record.
const NONCE: usize = 12;

/// What a record's header looks like to the AEAD.
pub(super) type Header = [u8; 5];
/// The initialisation vector combined with the record's number.
type Nonce = [u8; NONCE];

/// The two ciphers.
#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Aes128,
    Aes256,
}

/// The key of one direction, with the number of the next record.
pub(super) struct Key {
    gcm: Gcm,
    iv: Nonce,
    seq: u64,
}

/// The record cannot be opened, or no record can be sealed any more.
#[derive(Debug)]
pub(super) struct Refused;

impl Key {
    /// A key whose next record is number `seq`; none if the secrets belong to a suite that is not ours.
    pub(super) fn new(seq: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256, key, iv),
            _ => return None,
        };
        Some(Self { gcm: Gcm::new(algorithm, key.as_ref())?, iv: iv.as_ref().try_into().ok()?, seq })
    }

    /// The number of the next record, which is how many this key has dealt with.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Encrypts `plain` in place and returns the tag that belongs behind it.
    pub(super) fn seal(&mut self, header: Header, plain: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let nonce = self.next_nonce()?;
        self.gcm.seal(nonce, header, plain)
    }

    /// Checks and decrypts `sealed`, which ends with its tag, in place; returns the plaintext's length.
    pub(super) fn open(&mut self, header: Header, sealed: &mut [u8]) -> Result<usize, Refused> {
        let nonce = self.next_nonce()?;
        self.gcm.open(nonce, header, sealed)
    }

    /// The initialisation vector combined with the record's number (RFC 8446 §5.3).
    fn next_nonce(&mut self) -> Result<Nonce, Refused> {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= count;
        }
        self.seq = self.seq.checked_add(1).ok_or(Refused)?;
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What zeros become under a key and a nonce of zeros, from the test vectors of GCM's specification (cases 2 and 14).
    const ZEROS: [(Algorithm, usize, &str); 2] = [
        (Algorithm::Aes128, 16, "0388dace60b6a392f328c2b971b2fe78"),
        (Algorithm::Aes256, 32, "cea7403d4d606b6e074ec5d3baf39d18"),
    ];

    #[test]
    fn the_cipher_is_aes_gcm() {
        for (algorithm, key, sealed) in ZEROS {
            let mut text = [0; 16];
            Gcm::new(algorithm, &vec![0; key]).unwrap().seal([0; NONCE], [0; 5], &mut text).unwrap();
            let hex: String = text.iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(hex, sealed, "{algorithm:?}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_no_key() {
        for (algorithm, key, _) in ZEROS {
            assert!(Gcm::new(algorithm, &vec![0; key - 1]).is_none(), "{algorithm:?}");
        }
    }

    #[test]
    fn what_is_sealed_opens_again_and_what_was_touched_does_not() {
        for (algorithm, key, _) in ZEROS {
            let mut gcm = Gcm::new(algorithm, &vec![0; key]).unwrap();
            let (nonce, header) = ([7; NONCE], [23, 3, 3, 0, 30]);
            let mut record = b"a record of text".to_vec();
            let tag = gcm.seal(nonce, header, &mut record).unwrap();
            record.extend_from_slice(&tag);
            for at in [0, 15, 16, 31] {
                let mut touched = record.clone();
                touched[at] ^= 1;
                assert!(gcm.open(nonce, header, &mut touched).is_err(), "octet {at}");
            }
            assert!(gcm.open([8; NONCE], header, &mut record.clone()).is_err(), "another number");
            assert!(gcm.open(nonce, [23, 3, 3, 0, 31], &mut record.clone()).is_err(), "another header");
            assert!(gcm.open(nonce, header, &mut [0; TAG - 1]).is_err(), "shorter than a tag");
            assert_eq!(gcm.open(nonce, header, &mut record).unwrap(), 16);
            assert_eq!(&record[..16], b"a record of text");
        }
    }
}
