//! Packet rules of the calling thread's network namespace, set by nf_tables netlink.
//!
//! [`expr`] is the little of nf_tables' expression language that redirection needs; a [`Ruleset`] puts tables, chains
//! and rules into one batch, which the kernel takes as a whole or not at all; [`list`] reads back what there is. Rules of
//! others are not changed, and no external program is run.

pub mod expr;
pub mod list;
mod names;

use std::io;

use crate::netlink::{APPEND, Attributes, CREATE, Family, Message, Socket};
use expr::Rule;

/// The rules could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}; {}", remedy(source))]
pub struct NftError {
    action: String,
    source: io::Error,
}

impl NftError {
    /// What the kernel said.
    pub fn into_source(self) -> io::Error {
        self.source
    }
}

/// What is most likely amiss.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "CAP_NET_ADMIN in this network namespace is needed: run it as root",
        _ => {
            "the kernel needs nf_tables with nat and redirection for inet, and connection tracking: \
             modprobe nf_tables nft_chain_nat nft_redir nft_ct nft_socket nft_fib_inet"
        }
    }
}

/// Where the kernel consults a base chain.
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    /// Before the routing of what arrives.
    Prerouting,
    /// Before what is sent from here leaves.
    Output,
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of every connection, and changes its addresses.
    Nat,
    /// Sees every packet, which is routed again if its mark changed.
    Route,
}

/// The first rules that are consulted at a hook, or a chain that others jump to.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    name: &'a str,
    base: Option<(ChainKind, Hook, i32)>,
}

impl<'a> Chain<'a> {
    /// A chain that is reached by jumps only.
    pub fn called(name: &'a str) -> Chain<'a> {
        Chain { name, base: None }
    }

    /// A chain at a hook; lower priorities come first.
    pub fn at(name: &'a str, kind: ChainKind, hook: Hook, priority: i32) -> Chain<'a> {
        Chain { name, base: Some((kind, hook, priority)) }
    }
}

/// Tables of family `inet` with their chains and rules, in the order in which they are added.
#[derive(Debug, Default)]
pub struct Ruleset {
    message: Message,
    what: String,
}

impl Ruleset {
    /// An empty one; `what` is named in errors.
    pub fn new(what: &str) -> Ruleset {
        let begin = Message::default().mark(BATCH_BEGIN, &[0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8]);
        Ruleset { message: begin, what: what.to_owned() }
    }

    /// Adds a table.
    #[must_use]
    pub fn table(self, table: &str) -> Ruleset {
        self.described_table(table, "")
    }

    /// Adds a table with a text for whoever reads it.
    #[must_use]
    pub fn described_table(self, table: &str, comment: &str) -> Ruleset {
        self.add(libc::NFT_MSG_NEWTABLE, CREATE, |attributes| {
            attributes.text(names::table::NAME, table);
            put_comment(attributes, names::table::USER_DATA, comment);
        })
    }

    /// Takes a table away with all that is in it, whether or not it is there.
    #[must_use]
    pub fn without(self, table: &str) -> Ruleset {
        // What is not there cannot be deleted: so it is made, if need be.
        self.table(table).add(libc::NFT_MSG_DELTABLE, 0, |attributes| {
            attributes.text(names::table::NAME, table);
        })
    }

    /// Adds a chain to a table that was added before.
    #[must_use]
    pub fn chain(self, table: &str, chain: Chain<'_>) -> Ruleset {
        self.add(libc::NFT_MSG_NEWCHAIN, CREATE, |attributes| {
            attributes.text(names::chain::TABLE, table).text(names::chain::NAME, chain.name);
            let Some((kind, hook, priority)) = chain.base else { return };
            let (kind, hook) = (kind.name(), hook.number());
            attributes.text(names::chain::TYPE, kind).nested(names::chain::HOOK, |base| {
                base.network(names::chain::HOOK_NUMBER, hook);
                base.network(names::chain::HOOK_PRIORITY, priority.cast_unsigned());
            });
        })
    }

    /// Appends a rule to a chain that was added before.
    #[must_use]
    pub fn rule(self, table: &str, chain: &str, rule: Rule) -> Ruleset {
        self.add(libc::NFT_MSG_NEWRULE, CREATE | APPEND, |attributes| {
            attributes.text(names::rule::TABLE, table).text(names::rule::CHAIN, chain);
            attributes.nested(names::rule::EXPRESSIONS, |list| rule.encode(list));
            put_comment(attributes, names::rule::USER_DATA, rule.comment());
        })
    }

    /// Hands the whole to the kernel.
    ///
    /// # Errors
    /// [`NftError`]; then nothing was changed.
    pub fn apply(self) -> Result<(), NftError> {
        let batch = self.message.mark(BATCH_END, &[0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8]);
        let applied = Socket::open(Family::Netfilter).and_then(|mut socket| socket.perform(&batch));
        applied.map_err(|source| NftError { action: format!("set the packet rules of {}", self.what), source })
    }

    fn add(self, kind: i32, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) -> Ruleset {
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16;
        let head = [libc::NFPROTO_INET as u8, 0, 0, 0];
        Ruleset { message: self.message.request(kind, flags, &head, body), what: self.what }
    }
}

/// A text as `nft` shows it, in the form that it keeps it: kind, length, text, zero.
fn put_comment(attributes: &mut Attributes<'_>, kind: u16, comment: &str) {
    let mut end = comment.len().min(MOST_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    if end > 0 {
        let comment = &comment.as_bytes()[..end];
        attributes.bytes(kind, &[&[names::user_data::COMMENT, end as u8 + 1], comment, &[0]].concat());
    }
}

/// The longest comment that `nft` knows, less the zero at its end.
const MOST_COMMENT: usize = 127;

/// `NFNL_MSG_BATCH_BEGIN`; nothing before the end takes effect.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

impl ChainKind {
    fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }
}

impl Hook {
    fn number(self) -> u32 {
        let number = match self {
            Hook::Prerouting => libc::NF_INET_PRE_ROUTING,
            Hook::Output => libc::NF_INET_LOCAL_OUT,
        };
        number.cast_unsigned()
    }
}
