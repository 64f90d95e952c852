//! Secrets of the API: made, hashed, and compared in a time that tells nothing.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mapsmith_core::access::token::{ID_LENGTH, SECRET_BYTES, SecretHash, id_of};

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes; try again")]
pub struct NoRandom;

fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// 256 random bits, as text.
pub fn new_secret() -> Result<String, NoRandom> {
    Ok(URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?))
}

/// A token's id.
pub fn new_id() -> Result<String, NoRandom> {
    Ok(id_of(random::<ID_LENGTH>()?))
}

pub fn hash(secret: &str) -> SecretHash {
    let mut hash = SecretHash::default();
    // SHA-256 has as many bytes.
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Whether they are the same, in a time that does not depend on where they differ.
pub fn is_same(one: &SecretHash, other: &SecretHash) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use mapsmith_core::access::TokenText;

    use super::*;

    #[test]
    fn a_new_token_is_one_and_never_the_same() {
        let (id, secret) = (new_id().unwrap(), new_secret().unwrap());
        let text = TokenText::join(&id, &secret);
        assert!(TokenText::parse(&text).is_some_and(|it| it.id == id && it.secret == secret));
        assert_ne!(secret, new_secret().unwrap());
    }

    #[test]
    fn a_hash_is_sha_256() {
        let expected: Vec<u8> = vec![0xba, 0x78, 0x16, 0xbf];
        assert_eq!(hash("abc")[..4], expected, "FIPS 180-2, appendix B.1");
        assert!(is_same(&hash("abc"), &hash("abc")) && !is_same(&hash("abc"), &hash("abd")));
    }
}
