//! What tables and rules there are, as far as it takes to tell ours and what they did.
//!
//! Rules are not turned back into text: each of ours carries its meaning as a comment.

use std::io;

use super::{NftError, names};
use crate::netlink::read::{attributes, find, long_number, text};
use crate::netlink::{Family, Message, Socket};

/// Somebody else may change rules while they are listed; so often that this does not do is no accident.
const ATTEMPTS: usize = 10;
/// `struct nfgenmsg`.
const HEAD: usize = 4;

/// A table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The text that was given to it.
    pub comment: String,
}

/// A rule of such a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The text that was given to it.
    pub comment: String,
    /// Packets and bytes that it has matched, if it counts.
    pub counted: Option<(u64, u64)>,
}

/// All tables of the calling thread's namespace, in the kernel's order.
///
/// # Errors
/// [`NftError`]: most likely a missing `CAP_NET_ADMIN`.
pub fn tables() -> Result<Vec<Table>, NftError> {
    list(libc::NFT_MSG_GETTABLE, |table| {
        let name = text(table, names::table::NAME)?.to_owned();
        Some(Table { name, comment: comment(find(table, names::table::USER_DATA)) })
    })
}

/// All rules of the calling thread's namespace, in order within each chain.
///
/// # Errors
/// As [`tables`].
pub fn rules() -> Result<Vec<Rule>, NftError> {
    list(libc::NFT_MSG_GETRULE, |rule| {
        let name = |kind| Some(text(rule, kind)?.to_owned());
        Some(Rule {
            table: name(names::rule::TABLE)?,
            chain: name(names::rule::CHAIN)?,
            comment: comment(find(rule, names::rule::USER_DATA)),
            counted: find(rule, names::rule::EXPRESSIONS).and_then(counted),
        })
    })
}

/// Whether a rule of any family redirects to `port`, be it written in nftables or by iptables on top of it.
pub(crate) fn redirecting(port: u16) -> Result<bool, NftError> {
    let rules = list_of(libc::NFPROTO_UNSPEC, libc::NFT_MSG_GETRULE, |rule| {
        Some(redirects_to(find(rule, names::rule::EXPRESSIONS)?, port))
    })?;
    Ok(rules.contains(&true))
}

/// Both ways of writing it name the action and have the port in network order beside it.
fn redirects_to(expressions: &[u8], port: u16) -> bool {
    let name = |expression| text(expression, names::expression::NAME).unwrap_or_default();
    let is_redirect = |expression| match name(expression) {
        "redir" => true,
        "target" => find(expression, names::expression::BODY)
            .is_some_and(|body| text(body, names::target::NAME) == Some("REDIRECT")),
        _ => false,
    };
    let port = port.to_be_bytes();
    attributes(expressions).any(|(_, expression)| is_redirect(expression))
        && attributes(expressions).any(|(_, expression)| {
            ["immediate", "target"].contains(&name(expression)) && expression.windows(2).any(|two| two == port)
        })
}

fn list<T>(kind: i32, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, NftError> {
    list_of(libc::NFPROTO_INET, kind, read)
}

fn list_of<T>(family: i32, kind: i32, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, NftError> {
    let failed = |source| NftError { action: "read the packet rules".to_owned(), source };
    let request = Message::list(((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16, &[family as u8, 0, 0, 0]);
    let mut changed = io::Error::from(io::ErrorKind::Interrupted);
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let listed = Socket::open(Family::Netfilter)
            .and_then(|mut socket| socket.list(&request, HEAD, |object| found.extend(read(object))));
        match listed {
            Ok(()) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => changed = error,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(changed))
}

/// The comment among what `nft` keeps with an object: kinds, lengths and values of a byte, a byte and so many bytes.
fn comment(user_data: Option<&[u8]>) -> String {
    let mut rest = user_data.unwrap_or_default();
    while let [kind, length, tail @ ..] = rest {
        let Some((value, next)) = tail.split_at_checked(usize::from(*length)) else { break };
        if *kind == names::user_data::COMMENT {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = next;
    }
    String::new()
}

/// What the first counter among a rule's expressions says.
fn counted(expressions: &[u8]) -> Option<(u64, u64)> {
    let counter = attributes(expressions)
        .find(|(_, expression)| text(expression, names::expression::NAME) == Some("counter"))
        .and_then(|(_, expression)| find(expression, names::expression::BODY))?;
    let number = |kind| long_number(find(counter, kind));
    Some((number(names::counter::PACKETS)?, number(names::counter::BYTES)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_behind_what_else_is_kept_and_rubbish_has_none() {
        let kept = [&[9, 2, 1, 2, names::user_data::COMMENT, 4][..], b"why\0"].concat();
        assert_eq!(comment(Some(&kept)), "why");
        for length in 0..kept.len() {
            assert_eq!(comment(Some(&kept[..length])), "");
        }
        assert_eq!(comment(None), "");
    }
}
