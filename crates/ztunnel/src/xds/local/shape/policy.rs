//! Policies as they are written.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de::{EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Action, PolicyScope, is_default};

/// A policy; all parts have to be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of mesh::Policy, documented there")]
pub struct Policy {
    pub action: Action,
    pub dry_run: bool,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    /// Rules of clauses of matches.
    pub rules: Vec<Vec<Vec<Match>>>,
    pub scope: PolicyScope,
}

/// A match. An unknown key is refused: leaving it out could make a policy mean something else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the groups of mesh::policy::Match, documented there")]
pub struct Match {
    #[serde(skip_serializing_if = "is_default")]
    pub destination_ips: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "is_default")]
    pub destination_ports: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "is_default")]
    pub namespaces: Option<Vec<StringMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_destination_ips: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_destination_ports: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_namespaces: Option<Vec<StringMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_principals: Option<Vec<StringMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_service_accounts: Option<Vec<ServiceAccountMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub not_source_ips: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "is_default")]
    pub principals: Option<Vec<StringMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub service_accounts: Option<Vec<ServiceAccountMatch>>,
    #[serde(skip_serializing_if = "is_default")]
    pub source_ips: Option<Vec<IpNet>>,
}

/// A namespace and a service account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of mesh::policy::ServiceAccountMatch, documented there")]
pub struct ServiceAccountMatch {
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

/// A way of comparing text, written as `!Exact text` in YAML and as `{"Exact": "text"}` in JSON; both are read in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the variants of mesh::policy::StringMatch, documented there")]
pub enum StringMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Presence(),
}

#[derive(Deserialize)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Presence,
}

/// What follows the kind.
enum Operand {
    Text(Arc<str>),
    Nothing,
}

fn string_match<E: Error>(kind: Kind, operand: Operand) -> Result<StringMatch, E> {
    match (kind, operand) {
        (Kind::Exact, Operand::Text(text)) => Ok(StringMatch::Exact(text)),
        (Kind::Prefix, Operand::Text(text)) => Ok(StringMatch::Prefix(text)),
        (Kind::Suffix, Operand::Text(text)) => Ok(StringMatch::Suffix(text)),
        (Kind::Presence, Operand::Nothing) => Ok(StringMatch::Presence()),
        (Kind::Presence, Operand::Text(_)) => Err(E::custom("`Presence` takes no text, write it as `!Presence []`")),
        (_, Operand::Nothing) => Err(E::custom("the text to compare with is missing, write it as `!Exact text`")),
    }
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MatchVisitor;

        impl<'de> Visitor<'de> for MatchVisitor {
            type Value = StringMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one of `!Exact text`, `!Prefix text`, `!Suffix text`, `!Presence []`")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<StringMatch, A::Error> {
                let (kind, operand) = access.variant()?;
                string_match(kind, operand.newtype_variant()?)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMatch, A::Error> {
                let entry = map.next_entry()?;
                let (kind, operand) = entry.ok_or_else(|| A::Error::custom("the string match is empty"))?;
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("the string match says more than one thing"));
                }
                string_match(kind, operand)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<StringMatch, E> {
                match text {
                    "Presence" => Ok(StringMatch::Presence()),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(MatchVisitor)
    }
}

impl<'de> Deserialize<'de> for Operand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OperandVisitor;

        impl<'de> Visitor<'de> for OperandVisitor {
            type Value = Operand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text; quote it if it could be read as anything else")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Operand, E> {
                Ok(Operand::Text(text.into()))
            }

            fn visit_unit<E: Error>(self) -> Result<Operand, E> {
                Ok(Operand::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Operand, A::Error> {
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Operand::Nothing),
                    Some(_) => Err(A::Error::custom("a string match takes one text, not a list")),
                }
            }
        }

        deserializer.deserialize_any(OperandVisitor)
    }
}
