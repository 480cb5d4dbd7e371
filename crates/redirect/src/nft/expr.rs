//! Rules as lists of nf_tables expressions: conditions on a packet, then what is done with one that meets them all.
//!
//! Each condition loads what it asks for into register 1 and compares; a rule stops at the first that fails.

use std::net::IpAddr;

use super::names;
use crate::netlink::Attributes;

/// Whether a condition wants equality or its opposite.
#[derive(Debug, Clone, Copy)]
pub enum Is {
    /// The value must be the one given.
    Equal,
    /// It must be another.
    Other,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One end of a packet's way.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Conditions and actions in order.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    steps: Vec<Step>,
    comment: String,
}

#[derive(Debug, Clone)]
enum Step {
    Meta { key: i32 },
    Ct { key: i32 },
    SetMeta { key: i32 },
    SetCt { key: i32 },
    Payload { base: i32, offset: u32, length: u32 },
    Bitwise { mask: u32, xor: u32 },
    Compare { is: Is, value: Vec<u8> },
    Immediate { value: Vec<u8> },
    Verdict { code: i32, chain: Option<String> },
    Cgroup { level: u32 },
    DestinationType,
    Redirect,
    Counter,
}

impl Rule {
    /// A rule that every packet meets.
    pub fn new() -> Rule {
        Rule::default()
    }

    /// Packets of a transport protocol.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Rule {
        let number = match transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        };
        self.step(Step::Meta { key: libc::NFT_META_L4PROTO }).compare(Is::Equal, &[number as u8])
    }

    /// Packets of `address`'s family whose `end` is (not) that address.
    #[must_use]
    pub fn address(self, end: End, is: Is, address: IpAddr) -> Rule {
        let (family, offset, octets) = match (address, end) {
            (IpAddr::V4(v4), End::Source) => (libc::NFPROTO_IPV4, 12, v4.octets().to_vec()),
            (IpAddr::V4(v4), End::Destination) => (libc::NFPROTO_IPV4, 16, v4.octets().to_vec()),
            (IpAddr::V6(v6), End::Source) => (libc::NFPROTO_IPV6, 8, v6.octets().to_vec()),
            (IpAddr::V6(v6), End::Destination) => (libc::NFPROTO_IPV6, 24, v6.octets().to_vec()),
        };
        let length = octets.len() as u32;
        self.step(Step::Meta { key: libc::NFT_META_NFPROTO })
            .compare(Is::Equal, &[family as u8])
            .step(Step::Payload { base: libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length })
            .compare(is, &octets)
    }

    /// Packets whose port at `end` is (not) that port; to be preceded by [`Rule::transport`].
    #[must_use]
    pub fn port(self, end: End, is: Is, port: u16) -> Rule {
        let offset = match end {
            End::Source => 0,
            End::Destination => 2,
        };
        self.step(Step::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, length: 2 })
            .compare(is, &port.to_be_bytes())
    }

    /// Packets (not) leaving through an interface.
    #[must_use]
    pub fn leaving_by(self, is: Is, interface: &str) -> Rule {
        let mut name = interface.as_bytes().to_vec();
        name.resize(libc::IFNAMSIZ, 0);
        self.step(Step::Meta { key: libc::NFT_META_OIFNAME }).compare(is, &name)
    }

    /// Packets whose mark under `mask` is (not) `mark`.
    #[must_use]
    pub fn mark(self, is: Is, mark: u32, mask: u32) -> Rule {
        self.step(Step::Meta { key: libc::NFT_META_MARK })
            .step(Step::Bitwise { mask, xor: 0 })
            .compare(is, &mark.to_ne_bytes())
    }

    /// Packets of sockets that belong to a user of this number.
    #[must_use]
    pub fn user(self, user: u32) -> Rule {
        self.step(Step::Meta { key: libc::NFT_META_SKUID }).compare(Is::Equal, &user.to_ne_bytes())
    }

    /// Packets of sockets that were made in a control group (version 2) or below it: the one of this number (its folder's
    /// inode), `level` folders below the root.
    #[must_use]
    pub fn cgroup(self, id: u64, level: u32) -> Rule {
        self.step(Step::Cgroup { level }).compare(Is::Equal, &id.to_ne_bytes())
    }

    /// Packets to an address of this namespace itself.
    #[must_use]
    pub fn for_us(self) -> Rule {
        self.step(Step::DestinationType).compare(Is::Equal, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Packets of connections whose mark under `mask` is `mark`.
    #[must_use]
    pub fn connection_mark(self, mark: u32, mask: u32) -> Rule {
        self.step(Step::Ct { key: libc::NFT_CT_MARK })
            .step(Step::Bitwise { mask, xor: 0 })
            .compare(Is::Equal, &mark.to_ne_bytes())
    }

    /// Counts the packets that met all conditions so far, for whoever reads the rules with `nft`.
    #[must_use]
    pub fn counter(self) -> Rule {
        self.step(Step::Counter)
    }

    /// Replaces the bits under `mask` of the connection's mark by `mark`.
    #[must_use]
    pub fn set_connection_mark(self, mark: u32, mask: u32) -> Rule {
        self.step(Step::Ct { key: libc::NFT_CT_MARK })
            .step(Step::Bitwise { mask: !mask, xor: mark })
            .step(Step::SetCt { key: libc::NFT_CT_MARK })
    }

    /// Gives the packet its connection's mark.
    #[must_use]
    pub fn restore_mark(self) -> Rule {
        self.step(Step::Ct { key: libc::NFT_CT_MARK }).step(Step::SetMeta { key: libc::NFT_META_MARK })
    }

    /// Tracks the packet's connection in a zone of its own.
    #[must_use]
    pub fn set_zone(self, zone: u16) -> Rule {
        self.step(Step::Immediate { value: zone.to_ne_bytes().to_vec() }).step(Step::SetCt { key: names::ct::ZONE })
    }

    /// Ends the chain: the packet goes on as it is.
    #[must_use]
    pub fn accept(self) -> Rule {
        self.step(Step::Verdict { code: libc::NF_ACCEPT, chain: None })
    }

    /// Goes on in another chain of the table, then here.
    #[must_use]
    pub fn jump(self, chain: &str) -> Rule {
        self.step(Step::Verdict { code: libc::NFT_JUMP, chain: Some(chain.to_owned()) })
    }

    /// Sends the connection to a port of this machine instead.
    #[must_use]
    pub fn redirect(self, port: u16) -> Rule {
        self.step(Step::Immediate { value: port.to_be_bytes().to_vec() }).step(Step::Redirect)
    }

    /// Says what the rule is for, to whoever reads it.
    #[must_use]
    pub fn saying(mut self, comment: &str) -> Rule {
        comment.clone_into(&mut self.comment);
        self
    }

    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    fn compare(self, is: Is, value: &[u8]) -> Rule {
        self.step(Step::Compare { is, value: value.to_vec() })
    }

    fn step(mut self, step: Step) -> Rule {
        self.steps.push(step);
        self
    }

    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        for step in &self.steps {
            list.nested(names::expression::LIST_ELEMENT, |element| {
                element.text(names::expression::NAME, step.name());
                element.nested(names::expression::BODY, |body| step.encode(body));
            });
        }
    }
}

/// Register 1 of 16 bytes, the only one that is used.
const REGISTER: u32 = 1;

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Step::Meta { .. } | Step::SetMeta { .. } => "meta",
            Step::Ct { .. } | Step::SetCt { .. } => "ct",
            Step::Payload { .. } => "payload",
            Step::Bitwise { .. } => "bitwise",
            Step::Compare { .. } => "cmp",
            Step::Immediate { .. } | Step::Verdict { .. } => "immediate",
            Step::Cgroup { .. } => "socket",
            Step::DestinationType => "fib",
            Step::Redirect => "redir",
            Step::Counter => "counter",
        }
    }

    fn encode(&self, body: &mut Attributes<'_>) {
        let put = |body: &mut Attributes<'_>, values: &[(u16, u32)]| {
            for &(kind, value) in values {
                body.network(kind, value);
            }
        };
        let data = |body: &mut Attributes<'_>, kind: u16, value: &[u8]| {
            body.nested(kind, |data| {
                data.bytes(names::data::VALUE, value);
            });
        };
        match self {
            Step::Meta { key } => put(body, &[(names::meta::KEY, *key as u32), (names::meta::TO, REGISTER)]),
            Step::SetMeta { key } => put(body, &[(names::meta::KEY, *key as u32), (names::meta::FROM, REGISTER)]),
            Step::Ct { key } => put(body, &[(names::ct::KEY, *key as u32), (names::ct::TO, REGISTER)]),
            Step::SetCt { key } => put(body, &[(names::ct::KEY, *key as u32), (names::ct::FROM, REGISTER)]),
            Step::Payload { base, offset, length } => put(
                body,
                &[
                    (names::payload::TO, REGISTER),
                    (names::payload::BASE, *base as u32),
                    (names::payload::OFFSET, *offset),
                    (names::payload::LENGTH, *length),
                ],
            ),
            Step::Bitwise { mask, xor } => {
                put(
                    body,
                    &[(names::bitwise::FROM, REGISTER), (names::bitwise::TO, REGISTER), (names::bitwise::LENGTH, 4)],
                );
                data(body, names::bitwise::MASK, &mask.to_ne_bytes());
                data(body, names::bitwise::XOR, &xor.to_ne_bytes());
            }
            Step::Compare { is, value } => {
                let operation = match is {
                    Is::Equal => libc::NFT_CMP_EQ,
                    Is::Other => libc::NFT_CMP_NEQ,
                };
                put(body, &[(names::compare::FROM, REGISTER), (names::compare::OPERATION, operation as u32)]);
                data(body, names::compare::DATA, value);
            }
            Step::Immediate { value } => {
                put(body, &[(names::immediate::TO, REGISTER)]);
                data(body, names::immediate::DATA, value);
            }
            Step::Verdict { code, chain } => {
                put(body, &[(names::immediate::TO, libc::NFT_REG_VERDICT as u32)]);
                body.nested(names::immediate::DATA, |data| {
                    data.nested(names::data::VERDICT, |verdict| {
                        verdict.network(names::data::VERDICT_CODE, code.cast_unsigned());
                        if let Some(chain) = chain {
                            verdict.text(names::data::VERDICT_CHAIN, chain);
                        }
                    });
                });
            }
            Step::Cgroup { level } => put(
                body,
                &[
                    (names::socket::KEY, names::socket::CGROUP_V2),
                    (names::socket::TO, REGISTER),
                    (names::socket::LEVEL, *level),
                ],
            ),
            Step::DestinationType => put(
                body,
                &[
                    (names::fib::TO, REGISTER),
                    (names::fib::RESULT, names::fib::ADDRESS_TYPE),
                    (names::fib::FLAGS, names::fib::OF_DESTINATION),
                ],
            ),
            Step::Redirect => {
                body.network(names::redirect::FIRST_PORT_FROM, REGISTER)
                    .network(names::redirect::FLAGS, names::redirect::PORT_SPECIFIED);
            }
            Step::Counter => {}
        }
    }
}
