//! What ztunnel itself has installed in a namespace: one set of tables with names of its own and one way back for replies.
//!
//! Installing replaces what was installed before, in one step for the kernel. Removing takes away these tables, this rule
//! and this route, and nothing else.

use crate::host::{self, Host};
use crate::layout::{NODE_AGENT, ZTUNNEL};
use crate::nft::{Ruleset, list};
use crate::{DnsCapture, RedirectError, pod};

/// What is to be redirected in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everything, as in an enrolled pod.
    Pod(DnsCapture),
    /// What some apps send, and some of what they are sent.
    Host(Host),
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The text that it was installed with.
    pub comment: String,
    /// The rules that do something, in order within each chain.
    pub rules: Vec<list::Rule>,
}

/// Whether there was something to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// There was.
    All,
    /// There was not.
    Nothing,
}

/// Installs in the calling thread's namespace, in place of what was installed before. `comment` (at most 127 bytes) is
/// kept with it, for [`installed`] and `nft` to show.
///
/// # Errors
/// [`RedirectError::Taken`] if the node agent redirects here; else says what the kernel refused. Packet rules are as they
/// were then.
pub fn install(target: &Target, comment: &str) -> Result<(), RedirectError> {
    if let Some(table) = list::tables()?.into_iter().find(|table| NODE_AGENT.tables().contains(&table.name.as_str())) {
        return Err(RedirectError::Taken { table: table.name });
    }
    ZTUNNEL.replies.add()?;
    let rules = ZTUNNEL.tables().into_iter().fold(Ruleset::new("this network namespace"), Ruleset::without);
    let rules = match target {
        Target::Pod(dns) => pod::rules(&ZTUNNEL, rules, comment, *dns),
        Target::Host(host) => host::rules(&ZTUNNEL, rules, comment, host),
    };
    let applied = rules.apply();
    if applied.is_err() && matches!(installed(), Ok(None)) {
        // Nothing uses the routes then; that they could not be removed either is not what the operator has to know.
        let _ = ZTUNNEL.replies.remove();
    }
    Ok(applied?)
}

/// Removes what [`install`] has made in the calling thread's namespace.
///
/// # Errors
/// [`RedirectError`].
pub fn remove() -> Result<Removed, RedirectError> {
    let there = installed()?.is_some();
    if there {
        ZTUNNEL.tables().into_iter().fold(Ruleset::new("this network namespace"), Ruleset::without).apply()?;
    }
    // Whatever became of the tables: whoever asks for removal wants these gone.
    ZTUNNEL.replies.remove()?;
    Ok(if there { Removed::All } else { Removed::Nothing })
}

/// What is installed in the calling thread's namespace.
///
/// # Errors
/// [`RedirectError::Rules`].
pub fn installed() -> Result<Option<Installed>, RedirectError> {
    let ours = |table: &str| ZTUNNEL.tables().contains(&table);
    let tables: Vec<_> = list::tables()?.into_iter().filter(|table| ours(&table.name)).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let comment = tables.into_iter().map(|table| table.comment).find(|comment| !comment.is_empty());
    let rules = list::rules()?.into_iter().filter(|rule| ours(&rule.table) && rule.counted.is_some()).collect();
    Ok(Some(Installed { comment: comment.unwrap_or_default(), rules }))
}
