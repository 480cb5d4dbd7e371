//! What proves to the control plane who we are: a bearer token, the cluster's id, and headers of the operator's.
//!
//! The token's file is read at every call and trimmed; a file that appears later is used from then on. Tokens are
//! never printed (spec wire-protocols 6.3, identity-and-tls 2).

use std::fmt;
use std::path::PathBuf;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::files;

/// Largest token file. Service account tokens are about a kilobyte.
const MAX_TOKEN: u64 = 64 * 1024;

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file that has to be there.
    File(PathBuf),
    /// A file that need not be there: without it we come without credentials.
    OptionalFile(PathBuf),
    /// Text that does not change.
    Text(String),
}

/// No secrets in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::OptionalFile(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

/// What goes with every call.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// See [`Token`].
    pub token: Token,
    /// Tells the control plane which cluster's keys the token is signed with.
    pub cluster_id: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token {}: {source}; check AUTH_TOKEN and the volume of the token", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing in the file.
    #[error("token file exists, but was empty: {}", .0.display())]
    Empty(PathBuf),
    /// A token, a cluster id or a header holds what no header can.
    #[error("{0} holds characters that a gRPC header cannot carry")]
    Unprintable(&'static str),
}

impl Credentials {
    /// Adds what they consist of to the metadata of a call. The operator's headers cannot replace the others.
    ///
    /// # Errors
    /// [`TokenError`], which says what to mend.
    pub fn add_to(&self, metadata: &mut MetadataMap) -> Result<(), TokenError> {
        for (name, value) in &self.headers {
            let name: MetadataKey<Ascii> = name.parse().map_err(|_| TokenError::Unprintable("a header's name"))?;
            metadata.insert(name, value.parse().map_err(|_| TokenError::Unprintable("a header"))?);
        }
        let Some(token) = self.token()? else { return Ok(()) };
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| TokenError::Unprintable("the token"))?;
        bearer.set_sensitive(true);
        metadata.insert("authorization", bearer);
        let cluster = self.cluster_id.parse().map_err(|_| TokenError::Unprintable("the cluster id"))?;
        metadata.insert("clusterid", cluster);
        Ok(())
    }

    fn token(&self) -> Result<Option<String>, TokenError> {
        let (path, optional) = match &self.token {
            Token::Text(text) => return Ok(Some(text.clone())),
            Token::File(path) => (path, false),
            Token::OptionalFile(path) => (path, true),
        };
        match files::read_text(path, MAX_TOKEN) {
            Ok(text) if text.trim().is_empty() => Err(TokenError::Empty(path.clone())),
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TokenError::Read { path: path.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn metadata(token: Token) -> Result<MetadataMap, TokenError> {
        let headers = vec![("x-rev".to_owned(), "canary".to_owned()), ("clusterid".to_owned(), "other".to_owned())];
        let mut metadata = MetadataMap::new();
        Credentials { token, cluster_id: "c1".to_owned(), headers }.add_to(&mut metadata).map(|()| metadata)
    }

    fn header(metadata: &MetadataMap, name: &str) -> String {
        metadata.get(name).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_is_read_anew_for_every_call_and_without_its_newline() {
        let path = std::env::temp_dir().join(format!("ztunnel-token-{}", std::process::id()));
        let calls = ["one\n", "two"].map(|token| {
            fs::write(&path, token).unwrap();
            metadata(Token::File(path.clone())).unwrap()
        });
        assert_eq!(calls.each_ref().map(|m| header(m, "authorization")), ["Bearer one", "Bearer two"]);
        assert_eq!(
            (header(&calls[0], "clusterid"), header(&calls[0], "x-rev")),
            ("c1".to_owned(), "canary".to_owned())
        );
        fs::write(&path, "\n").unwrap();
        assert!(metadata(Token::File(path.clone())).unwrap_err().to_string().starts_with("token file exists, but was"));
        fs::remove_file(&path).unwrap();
        assert!(metadata(Token::File(path.clone())).unwrap_err().to_string().contains("check AUTH_TOKEN"));
        assert!(metadata(Token::OptionalFile(path)).unwrap().get("authorization").is_none());
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::Text("secret".to_owned());
        assert_eq!(header(&metadata(token.clone()).unwrap(), "authorization"), "Bearer secret");
        assert!(!format!("{token:?} {:?}", metadata(token.clone()).unwrap()).contains("secret"));
        assert_eq!(metadata(Token::Text("a\nb".into())).unwrap_err().to_string().split(' ').next(), Some("the"));
    }
}
